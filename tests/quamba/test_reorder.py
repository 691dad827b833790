"""Head reordering of Mamba-2: order and groups, the permutation of the weights, and what it is worth."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quamba.errors import ModelError, RecipeError
from quamba.models.build import build_model
from quamba.models.config import parse_config
from quamba.nn.linear import QLinear
from quamba.nn.mamba2 import Mamba2Mixer
from quamba.nn.model import MambaLM
from quamba.transforms.clustering import segment, ward
from quamba.transforms.grouping import Grouping
from quamba.transforms.ranges import reorder_ranges
from quamba.transforms.reorder import cluster, permute_mixer
from quamba.transforms.tables import expand_groups, expand_ssd_groups, group_maximum, group_table, ssd_group_maximum
from tests.quamba.checkpoints import random_state_dict, small_config

MODELS: dict[str, dict[str, Any]] = {
    "one group": {},
    "two groups": {"ssm_ngroups": 2},
    "eight groups": {"ssm_ngroups": 8},
    "D by channel": {"ssm_ngroups": 2, "ssm_D_has_hdim": True},
    "no norm": {"ssm_rmsnorm": False},
    "norm before gate": {"ssm_ngroups": 2, "ssm_norm_before_gate": True},
    "biases": {"ssm_bias": True},
    "no convolution bias": {"ssm_conv_bias": False},
    "limits of dt": {"ssm_dt_limit": [0.05, 0.2]},
}


few = settings(deadline=None, max_examples=60)


def small_model(seed: int = 0, **changes: Any) -> MambaLM:
    """E = 128 channels in 32 heads of 4."""
    config = small_config("mamba2", d_model=64, vocab_size=120, ssm_headdim=4, **changes)
    state = random_state_dict(config, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for i in range(config["n_layer"]):
        mixer = f"backbone.layers.{i}.mixer."
        for name in ("in_proj", "out_proj") if config["ssm_cfg"].get("bias") else ():
            rows = len(state[f"{mixer}{name}.weight"])
            state[f"{mixer}{name}.bias"] = torch.randn(rows, generator=generator)
        if config["ssm_cfg"].get("conv_bias") is False:
            del state[f"{mixer}conv1d.bias"]
    return build_model(parse_config(config, Path("config.json")), state, "a test")


def mixers(model: MambaLM) -> list[Mamba2Mixer]:
    found = [module for module in model.modules() if isinstance(module, Mamba2Mixer)]
    assert len(found) == model.config.n_layer
    return found


def random_grouping(model: MambaLM, seed: int) -> Grouping:
    c = model.config
    generator = torch.Generator().manual_seed(seed)
    statistic = torch.rand(c.d_inner, generator=generator)
    return cluster(statistic, statistic * 3, c.ngroups, c.nheads, c.headdim)


def permuted(seed: int = 0, **changes: Any) -> tuple[MambaLM, MambaLM, list[Grouping]]:
    """A model, the same reordered, and how each layer was."""
    before, after = small_model(seed, **changes), small_model(seed, **changes)
    groupings = [random_grouping(before, 10 + layer) for layer in range(before.config.n_layer)]
    for mixer, grouping in zip(mixers(after), groupings, strict=True):
        permute_mixer(mixer, grouping)
    return before, after, groupings


def x_of(mixer: Mamba2Mixer, u: Tensor) -> Tensor:
    """What the scan reads, [tokens, E]."""
    c = mixer.config
    conv: Tensor = mixer.conv1d(mixer.in_proj(u).narrow(-1, c.d_inner, c.conv_dim))
    return conv[..., : c.d_inner].reshape(-1, c.d_inner)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


# The permutation


@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
def test_reordering_leaves_the_logits(changes: dict[str, Any]) -> None:
    """Heads and channels are only relabelled: of whole prompts, padded prompts and steps, every logit stays."""
    before, after, groupings = permuted(**changes)
    assert all((g.channel_order != torch.arange(128)).any() for g in groupings)
    tokens = torch.randint(0, 120, (2, 11), generator=torch.Generator().manual_seed(3))
    lengths = torch.tensor([11, 7])
    assert_close(after(tokens), before(tokens))
    caches = [model.new_cache(2) for model in (before, after)]
    assert_close(after.prefill(tokens, lengths, caches[1]), before.prefill(tokens, lengths, caches[0]))
    for step in range(3):
        assert_close(after.step(tokens[:, step], caches[1]), before.step(tokens[:, step], caches[0]))


@pytest.mark.parametrize("changes", [{}, {"ssm_ngroups": 8}], ids=["one group", "eight groups"])
def test_reordering_relabels_what_is_quantized(changes: dict[str, Any]) -> None:
    """Position i of the new x and of the new state holds what position channel_order[i] held."""
    before, after, groupings = permuted(**changes)
    u = torch.randn(1, 9, 64, generator=torch.Generator().manual_seed(4))
    order = groupings[0].channel_order
    assert_close(x_of(mixers(after)[0], u), x_of(mixers(before)[0], u)[:, order])
    states = []
    for model in (before, after):
        cache = model.new_cache(1)
        mixers(model)[0](u, cache=cache.layers[0])
        assert isinstance(cache.layers[0].state, Tensor)
        states.append(cache.layers[0].state[0].flatten(0, 1))
    assert_close(states[1], states[0][order])


def test_a_layer_that_cannot_be_reordered_is_refused() -> None:
    """Mamba-1, quantized layers and groupings of other sizes get an error, and stay as they were."""
    model = small_model()
    mixer, grouping = mixers(model)[0], random_grouping(model, 0)
    config = small_config("mamba1")
    mamba1 = build_model(parse_config(config, Path("config.json")), random_state_dict(config), "a test")
    with pytest.raises(TypeError, match="only Mamba-2"):
        permute_mixer(mamba1.get_submodule("layers.0.mixer"), grouping)
    with pytest.raises(ValueError, match="2 SSD groups"):
        permute_mixer(mixer, random_grouping(small_model(ssm_ngroups=2), 0))
    float_part = mixer.out_proj
    mixer.out_proj = QLinear.quantize(float_part, torch.tensor(1.0))
    with pytest.raises(TypeError, match="quantized"):
        permute_mixer(mixer, grouping)
    mixer.out_proj = float_part
    u = torch.randn(1, 5, 64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(mixer(u), mixers(small_model())[0](u))


# Order and groups


@st.composite
def statistics(draw: st.DrawFn) -> tuple[Tensor, Tensor, int, int, int]:
    """Statistic, absmax, G, H, P; few values, so that heads and channels repeat and vanish."""
    G, heads_each, P = draw(st.integers(1, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    values = st.sampled_from([0.0, 1.0, 1.5, 1e-30, 1e30]) | st.floats(0, 10, width=32)
    profiles = draw(st.lists(st.lists(values, min_size=P, max_size=P), min_size=1, max_size=3))
    heads = draw(st.lists(st.sampled_from(profiles), min_size=G * heads_each, max_size=G * heads_each))
    statistic = torch.tensor(heads).flatten()
    factor = draw(st.sampled_from([0.0, 1.0, 7.0]))
    return statistic, statistic * factor, G, G * heads_each, P


@few
@given(statistics(), st.integers(1, 6), st.integers(1, 6))
def test_there_are_always_as_many_groups_as_asked_for(
    data: tuple[Tensor, Tensor, int, int, int], head_groups: int, channel_groups: int
) -> None:
    """m x k groups in each SSD group, none empty, whatever repeats; fewer only where heads or channels are fewer."""
    _, _, G, H, P = data
    grouping = cluster(*data, head_groups, channel_groups)
    m, k = min(head_groups, H // G), min(channel_groups, P)
    assert grouping.channel_ends.shape == (G, m, k)
    assert grouping.group_count == G * m * k == len(grouping.channels_per_group)
    assert grouping.channels_per_group.min() >= 1
    assert grouping.channels_per_group.sum() == H * P


@few
@given(statistics(), st.integers(1, 4), st.integers(1, 4))
def test_groups_are_rectangles_of_neighbours(
    data: tuple[Tensor, Tensor, int, int, int], head_groups: int, channel_groups: int
) -> None:
    """Walking through heads and channels in the new order fills group after group: the table has what the ends say."""
    grouping = cluster(*data, head_groups, channel_groups)
    G, m, k = grouping.channel_ends.shape
    wanted: list[int] = []
    for g, i in itertools.product(range(G), range(m)):
        row = [(g * m + i) * k + j for j in range(k) for _ in range(size_at(grouping.channel_ends[g, i], j))]
        wanted += row * size_at(grouping.head_ends[g], i)
    assert grouping.group_of_channel.tolist() == wanted


def size_at(ends: Tensor, index: int) -> int:
    return int(ends[index]) - (int(ends[index - 1]) if index else 0)


@few
@given(statistics())
def test_channels_are_sorted_inside_their_head(data: tuple[Tensor, Tensor, int, int, int]) -> None:
    """In the new order the statistic rises through each head; equal channels keep their order; so do heads of a group;
    no head leaves its SSD group."""
    statistic, _, G, H, P = data
    grouping = cluster(*data)
    channels = grouping.channel_order.view(H, P)
    assert torch.equal(channels // P, grouping.head_order[:, None].expand(H, P))
    for row in channels.tolist():
        keys = [(float(statistic[channel]), channel) for channel in row]
        assert keys == sorted(keys)
    for g, heads in enumerate(grouping.head_order.view(G, -1).tolist()):
        assert sorted(heads) == list(range(g * H // G, (g + 1) * H // G))
        starts = [0, *grouping.head_ends[g].tolist()]
        parts = [heads[start:end] for start, end in itertools.pairwise(starts)]
        assert all(part == sorted(part) for part in parts)
        assert [part[0] for part in parts] == sorted(part[0] for part in parts)


def test_channel_groups_come_from_the_clustered_heads() -> None:
    """Where alike heads do not lie side by side, each head group is still cut at its own heads' jump."""
    late, early = [1.0, 1.0, 1.0, 10.0], [1.0, 10.0, 10.0, 10.0]
    statistic = torch.tensor([late, early, late, early]).flatten()
    grouping = cluster(statistic, statistic, 1, 4, 4, head_groups=2, channel_groups=2)
    assert grouping.head_order.tolist() == [0, 2, 1, 3]
    assert grouping.head_ends.tolist() == [[2, 4]]
    assert grouping.channel_ends.tolist() == [[[3, 4], [1, 4]]]


def test_heads_are_alike_by_their_profile_whatever_their_order_and_size() -> None:
    """Clusters are of sorted rows of unit norm: a head's size and the order of its channels do not matter."""
    statistic = torch.tensor([[1.0, 9.0, 1.0], [3.0, 3.0, 3.0], [500.0, 500.0, 4500.0], [0.2, 0.2, 0.2]]).flatten()
    grouping = cluster(statistic, statistic, 1, 4, 3, head_groups=2, channel_groups=1)
    assert grouping.head_order.tolist() == [0, 2, 1, 3]
    assert grouping.channel_order.tolist() == [0, 2, 1, 6, 7, 8, 3, 4, 5, 9, 10, 11]


def test_ranks_are_cut_by_range_not_by_statistic() -> None:
    """The order comes from the means, the cut from the maxima, which are what the quantizer uses."""
    statistic, absmax = torch.tensor([1.0, 2.0, 3.0, 100.0]), torch.tensor([1.0, 50.0, 50.0, 50.0])
    grouping = cluster(statistic, absmax, 1, 1, 4, head_groups=1, channel_groups=2)
    assert grouping.channel_ends.tolist() == [[[1, 4]]]


ranges_of_ranks = st.lists(st.sampled_from([0.0, 1.0, 2.0]) | st.floats(0, 1e3), min_size=1, max_size=8)


def noise(ranges: list[float], ends: tuple[int, ...]) -> float:
    return sum((end - start) * max(ranges[start:end]) ** 2 for start, end in itertools.pairwise((0, *ends)))


@given(ranges_of_ranks, st.data())
def test_no_cut_is_better_than_the_one_found(ranges: list[float], data: st.DataObject) -> None:
    """The segmentation has exactly as many segments as asked for, and of all such the least sum n range^2."""
    segments = data.draw(st.integers(1, len(ranges)))
    found = tuple(segment(torch.tensor(ranges, dtype=torch.float64), segments))
    every = [(*cut, len(ranges)) for cut in itertools.combinations(range(1, len(ranges)), segments - 1)]
    assert found in every
    assert noise(ranges, found) <= min(noise(ranges, ends) for ends in every) * (1 + 1e-12)


@given(st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=2, max_size=2), min_size=1, max_size=8), st.data())
def test_ward_separates_what_differs_before_what_is_equal(rows: list[list[float]], data: st.DataObject) -> None:
    """Exactly as many clusters as asked for; equal rows part only where there are more clusters than distinct rows."""
    clusters = data.draw(st.integers(1, len(rows)))
    labels = ward(torch.tensor(rows, dtype=torch.float64), clusters).tolist()
    assert set(labels) == set(range(clusters))
    together = {tuple(row) for row in rows}
    if clusters <= len(together):
        assert len({(tuple(row), label) for row, label in zip(rows, labels, strict=True)}) == len(together)


def test_unusable_statistics_are_refused() -> None:
    """NaN, no groups at all and sizes that do not fit are errors of one line, never some order."""
    ones = torch.ones(12)
    with pytest.raises(ModelError, match="1 of 12 channels are not finite"):
        cluster(ones, ones.index_fill(0, torch.tensor([3]), torch.nan), 1, 4, 3)
    with pytest.raises(RecipeError, match="at least 1, not 0 and 4"):
        cluster(ones, ones, 1, 4, 3, head_groups=0)
    with pytest.raises(ValueError, match=r"\[16\] statistics, not \[12\]"):
        cluster(ones, ones, 2, 4, 4)


# Ranges


@st.composite
def extremes(draw: st.DrawFn) -> tuple[Tensor, Tensor, Grouping]:
    """Signed extremes of x or of states, and a grouping made from other values."""
    statistic, absmax, G, H, P = draw(statistics())
    grouping = cluster(statistic, absmax, G, H, P)
    shape = draw(st.sampled_from([(H * P,), (H, P, 3)]))
    seed, size = draw(st.integers(0, 99)), draw(st.sampled_from([0.0, 1e-20, 1.0, 1e20]))
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(shape, generator=generator) * size for _ in range(2))
    return torch.minimum(a, b), torch.maximum(a, b), grouping


@few
@given(extremes())
def test_groups_never_widen_a_range(data: tuple[Tensor, Tensor, Grouping]) -> None:
    """Weighted means of group ranges lie within the whole's: reductions are fractions in [0, 1), the rounding noise
    shrinks less than the mean range does."""
    ranges = reorder_ranges(*data)
    for grouped in (ranges.after, ranges.control):
        assert ranges.before.min <= grouped.min + 1e-9 * ranges.before.range
        assert grouped.max <= ranges.before.max + 1e-9 * ranges.before.range
        assert 0 <= grouped.range <= ranges.before.range
    assert 0 <= ranges.range_reduction_rms <= ranges.range_reduction + 1e-9
    assert 0 <= ranges.range_reduction < 1
    assert 0 <= ranges.range_reduction_grouping_only < 1


@few
@given(extremes())
def test_ranges_do_not_depend_on_the_order_they_are_measured_in(data: tuple[Tensor, Tensor, Grouping]) -> None:
    """A permutation changes nothing of the whole; extremes taken after it give the same groups' ranges."""
    minimum, maximum, grouping = data
    ranges = reorder_ranges(*data)
    assert ranges.before.range == float(torch.maximum(minimum.abs(), maximum.abs()).max())
    channels = len(grouping.channel_order)
    new_order = [
        values.reshape(channels, -1)[grouping.channel_order].reshape(values.shape) for values in (minimum, maximum)
    ]
    measured_after = reorder_ranges(new_order[0], new_order[1], grouping.in_original_order())
    assert measured_after.before == ranges.before
    assert measured_after.after == ranges.after
    assert measured_after.range_reduction_rms == ranges.range_reduction_rms


def two_by_two() -> Grouping:
    """Two heads of three channels, one head group, channel groups of one and two; heads change places."""
    order = torch.tensor([5, 3, 4, 0, 2, 1])
    return Grouping(torch.tensor([1, 0]), order, torch.tensor([[2]]), torch.tensor([[[1, 3]]]))


def test_ranges_of_an_example() -> None:
    """Definitions of before, after, control and reductions, with numbers worked out by hand."""
    # In the new order: maxima 2 2 | 4 8 8 4 (channels 5, 0 | 3, 4, 2, 1), minima -1 -3 | -8 0 -2 -16.
    maximum = torch.tensor([2.0, 4.0, 8.0, 4.0, 8.0, 2.0])
    minimum = torch.tensor([-3.0, -16.0, -2.0, -8.0, 0.0, -1.0])
    ranges = reorder_ranges(minimum, maximum, two_by_two())
    assert (ranges.before.min, ranges.before.max, ranges.before.range, ranges.before.span) == (-16, 8, 16, 24)
    assert ranges.after.range == pytest.approx((2 * 3 + 4 * 16) / 6)
    assert ranges.after.min == pytest.approx((2 * -3 + 4 * -16) / 6)
    assert ranges.after.max == pytest.approx((2 * 2 + 4 * 8) / 6)
    # Unpermuted, the first channels of both heads are 0 and 3.
    assert ranges.control.range == pytest.approx((2 * 8 + 4 * 16) / 6)
    assert ranges.n_groups == 2
    assert ranges.range_reduction_pct == pytest.approx(100 * (1 - 70 / 6 / 16))
    assert ranges.range_reduction_grouping_only_pct == pytest.approx(100 * (1 - 80 / 6 / 16))
    assert ranges.range_reduction_reorder_only == pytest.approx(10 / 80)
    assert ranges.range_reduction_rms == pytest.approx(1 - ((2 * 9 + 4 * 256) / 6) ** 0.5 / 16)


def test_each_column_of_a_state_has_groups_of_its_own() -> None:
    """The state's ranges are the weighted means over groups and columns: those of the columns' own reports."""
    generator = torch.Generator().manual_seed(0)
    maximum = torch.rand(2, 3, 5, generator=generator)
    ranges = reorder_ranges(-maximum / 2, maximum, two_by_two())
    columns = [reorder_ranges(-c.flatten() / 2, c.flatten(), two_by_two()) for c in maximum.unbind(-1)]
    assert ranges.n_groups == 10
    assert ranges.before.range == max(column.before.range for column in columns)
    assert ranges.after.range == pytest.approx(sum(column.after.range for column in columns) / 5)
    assert ranges.control.range == pytest.approx(sum(column.control.range for column in columns) / 5)


def test_sorting_is_worth_something_where_ranges_differ() -> None:
    """Where large and small channels lie mixed, the reordered groups are tighter than the same groups unordered."""
    model = small_model()
    mixer = mixers(model)[0]
    size = torch.logspace(-2, 0, 128)[torch.randperm(128, generator=torch.Generator().manual_seed(0))]
    mixer.conv1d.weight[:128] *= size[:, None]
    mixer.conv1d.bias[:128] *= size
    x = x_of(mixer, torch.randn(8, 50, 64, generator=torch.Generator().manual_seed(1)))
    statistic, minimum, maximum = x.abs().mean(dim=0), x.amin(dim=0), x.amax(dim=0)
    grouping = cluster(statistic, x.abs().amax(dim=0), 1, 32, 4)
    ranges = reorder_ranges(minimum, maximum, grouping)
    assert ranges.range_reduction_reorder_only > 0.1
    assert ranges.range_reduction > ranges.range_reduction_grouping_only > 0


def test_ranges_that_cannot_be_are_refused() -> None:
    """Infinite extremes and shapes of another layer are errors, never numbers in a record."""
    with pytest.raises(ModelError, match="6 of 6 activation ranges are not finite"):
        reorder_ranges(torch.zeros(6), torch.full((6,), torch.inf), two_by_two())
    with pytest.raises(ValueError, match=r"\[6\] or \[2, 3, N\], not \[3, 2, 4\]"):
        reorder_ranges(torch.zeros(3, 2, 4), torch.zeros(3, 2, 4), two_by_two())


def test_a_tensor_of_zeros_has_nothing_to_reduce() -> None:
    """Reductions of nothing are 0, not NaN."""
    ranges = reorder_ranges(torch.zeros(6), torch.zeros(6), two_by_two())
    assert (ranges.range_reduction_pct, ranges.range_reduction_rms, ranges.range_reduction_reorder_only) == (0, 0, 0)


# Tables


@few
@given(extremes())
def test_each_position_gets_its_groups_maximum(data: tuple[Tensor, Tensor, Grouping]) -> None:
    """The table holds, at each new position, the largest value of all positions of its group and column."""
    _, absmax, grouping = data
    absmax = absmax.abs()
    channels = len(grouping.channel_order)
    new_order = absmax.reshape(channels, -1)[grouping.channel_order]
    table = group_table(absmax, grouping)
    assert table.shape == absmax.shape
    group = grouping.group_of_channel
    wanted = torch.stack([new_order[group == group[position]].amax(dim=0) for position in range(channels)])
    assert torch.equal(table.reshape(channels, -1), wanted)


def test_any_value_of_a_group_spreads_over_its_channels() -> None:
    """Clips spread as maxima do: to [E] for x, to [H, P, N] for states, to [G N] for B and C."""
    grouping = two_by_two()
    assert expand_groups(torch.tensor([0.5, 7.0]), grouping).tolist() == [0.5, 7.0, 7.0, 0.5, 7.0, 7.0]
    states = expand_groups(torch.tensor([[0.5, 1.5], [7.0, 8.0]]), grouping)
    assert states.tolist() == [[[0.5, 1.5], [7.0, 8.0], [7.0, 8.0]]] * 2
    clips = ssd_group_maximum(torch.tensor([1.0, 3.0, 2.0, 9.0, 8.0, 7.0]), 2)
    assert clips.tolist() == [3.0, 9.0]
    assert expand_ssd_groups(clips, 3).tolist() == [3.0, 3.0, 3.0, 9.0, 9.0, 9.0]
    with pytest.raises(ValueError, match=r"2 groups has no use for values \[3\]"):
        expand_groups(torch.ones(3), grouping)


def test_groups_of_signed_values_have_their_own_maximum() -> None:
    """The maximum of a group of negative values is negative: nothing pads it with 0."""
    assert group_maximum(-torch.arange(1.0, 7.0), two_by_two()).tolist() == [-1.0, -2.0]


# The stored form


@few
@given(statistics())
def test_a_grouping_survives_as_json(data: tuple[Tensor, Tensor, int, int, int]) -> None:
    """from_lists(json(to_lists(g))) is g: order, ends and dtypes."""
    grouping = cluster(*data)
    read = Grouping.from_lists(json.loads(json.dumps(grouping.to_lists())))
    for name in ("head_order", "channel_order", "head_ends", "channel_ends"):
        stored, wanted = getattr(read, name), getattr(grouping, name)
        assert stored.dtype == torch.int64
        assert torch.equal(stored, wanted)


@pytest.mark.parametrize(
    "change",
    [
        {"head_order": [1, 1]},
        {"head_order": [0, 1]},
        {"head_order": [1.0, 0.0]},
        {"head_order": [True, False]},
        {"head_order": []},
        {"head_order": None},
        {"head_order": ["1", "0"]},
        {"head_order": [1, 2**70]},
        {"channel_order": [5, 3, 4, 0, 2, 2]},
        {"channel_order": [0, 3, 4, 5, 2, 1]},
        {"channel_order": [5, 3, 4, 0, 2]},
        {"head_ends": [[3]]},
        {"head_ends": [[0, 2]]},
        {"head_ends": [2]},
        {"channel_ends": [[[3, 3]]]},
        {"channel_ends": [[[2, 1]]]},
        {"channel_ends": [[[1, 3], [1]]]},
        {"channel_ends": [[[1, 3], [1, 3]]]},
        {"more": 1},
    ],
    ids=str,
)
def test_a_damaged_grouping_is_refused(change: dict[str, Any]) -> None:
    """Whatever does not describe one layer's order and groups is an error of one line."""
    with pytest.raises(ModelError, match="quantize the model again") as raised:
        Grouping.from_lists(two_by_two().to_lists() | change)
    assert "\n" not in str(raised.value)


def test_heads_cannot_leave_their_group() -> None:
    """An order that mixes SSD groups cannot be built."""
    grouping = cluster(torch.ones(12), torch.ones(12), 2, 4, 3)
    with pytest.raises(ValueError, match="head_order: positions 0 to 1"):
        replace(grouping, head_order=torch.tensor([0, 2, 1, 3]))
