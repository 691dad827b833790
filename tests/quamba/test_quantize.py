"""Quantization: integers exact, rounding half to even, saturation, and a model that still says what it said."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quamba.errors import DataError, RecipeError
from quamba.flow.calibrate import Calibration, batch_documents
from quamba.flow.quantize import quantize
from quamba.flow.recipe import Recipe
from quamba.flow.sites import SITES
from quamba.models.loading import LoadedModel, load_model
from quamba.models.saving import size_bytes
from quamba.nn.cache import LayerCache
from quamba.nn.conv import CausalConv1d, QCausalConv1d
from quamba.nn.linear import Linear, QLinear
from quamba.observers.clipping import MINMAX, Clipping
from quamba.qtypes import QTensor, quantize_int8, scale_of
from quamba.reports import LayerReport, ProgressReport
from tests.quamba.checkpoints import MODELS, small_config, write_checkpoint

FAMILIES = ["mamba1", "mamba2"]
DOCUMENTS = Path(__file__).resolve().parents[2] / "quamba" / "data" / "gutenberg" / "calibration.jsonl"


@settings(max_examples=50, deadline=None)
@given(absmax=st.floats(1e-3, 1e4), seed=st.integers(0, 1 << 30))
def test_rounding_is_within_half_a_step(absmax: float, seed: int) -> None:
    """|x - s q8(x)| <= s / 2 for all x inside the range."""
    x = (torch.rand(500, generator=torch.Generator().manual_seed(seed)) * 2 - 1) * absmax
    scale = scale_of(absmax)
    error = (quantize_int8(x, scale).dequantize().double() - x.double()).abs().max()
    assert float(error) <= float(scale) / 2 * (1 + 1e-5)


def test_ties_go_to_even_and_what_is_outside_saturates() -> None:
    """Half to even at ties; no cast wraps around."""
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 127.5, 1e9, -128.5, -1e9])
    codes = quantize_int8(x, torch.tensor(1.0)).codes.tolist()
    assert codes == [0, 2, 2, 0, -2, -2, 127, 127, -128, -128]


def test_scales_come_from_the_absolute_maximum() -> None:
    """A channel of negative weights only is quantized as well as its mirror image."""
    weight = torch.stack([torch.linspace(0.01, 1, 50), -torch.linspace(0.01, 1, 50)])
    layer = QLinear.quantize(Linear(weight), torch.tensor(1.0))
    assert torch.equal(layer.codes[0], -layer.codes[1])
    assert torch.equal(layer.weight_scale, torch.full((2,), 1 / 127))


@pytest.mark.parametrize("columns", [64, 1500])
def test_a_quantized_layer_is_the_product_of_its_codes(columns: int) -> None:
    """Integer accumulation is exact; one multiplication by the scales follows; codes out are its rounding."""
    generator = torch.Generator().manual_seed(0)
    linear = Linear(torch.randn(30, columns, generator=generator), torch.randn(30, generator=generator))
    x = torch.randn(5, 7, columns, generator=generator)
    in_scale, out_scale = scale_of(x.abs().max()), torch.full((30,), 0.5)
    q = quantize_int8(x, in_scale)
    layer = QLinear.quantize(linear, in_scale)
    accumulated = torch.einsum("blk,nk->bln", q.codes.double(), layer.codes.double())
    assert linear.bias is not None
    expected = accumulated * (in_scale * layer.weight_scale).double() + linear.bias
    y = layer(x)
    assert torch.allclose(y.double(), expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(layer(q), y)
    coded = QLinear.quantize(linear, in_scale, out_scale)(x)
    assert isinstance(coded, QTensor)
    assert (coded.codes.double() - (expected / 0.5).clamp(-128, 127)).abs().max() <= 0.5 + 1e-4


def test_a_row_alone_gives_the_same_codes_as_in_a_batch() -> None:
    """One row and many rows of the same layer agree to the bit: decoding and prefill are one arithmetic."""
    generator = torch.Generator().manual_seed(1)
    layer = QLinear.quantize(Linear(torch.randn(40, 96, generator=generator)), torch.tensor(0.03), torch.tensor(0.2))
    x = torch.randn(9, 96, generator=generator)
    assert torch.equal(layer(x[4:5]).codes, layer(x).codes[4:5])


def test_the_quantized_convolution_is_exact_up_to_its_rounding() -> None:
    """v = s_w s_x sum q_w q_x + s_b q_b in exact integers, SiLU, then codes; also when cut in two."""
    generator = torch.Generator().manual_seed(2)
    conv = CausalConv1d(torch.randn(6, 4, generator=generator), torch.randn(6, generator=generator))
    x = quantize_int8(torch.randn(2, 20, 6, generator=generator), torch.tensor(0.02))
    layer = QCausalConv1d.quantize(conv, torch.tensor(0.05), (3, 3))
    padded = torch.nn.functional.pad(x.codes.double(), (0, 0, 3, 0))
    sums = torch.stack([(padded[:, t : t + 4] * layer.codes.double().t()).sum(1) for t in range(20)], dim=1)
    assert layer.bias_codes is not None
    v = sums * (layer.weight_scale * 0.02).double() + (layer.bias_codes * layer.bias_scale).double()
    expected = torch.nn.functional.silu(v) / 0.05
    codes = layer(x).codes
    assert (codes.double() - expected.clamp(-128, 127)).abs().max() <= 0.5 + 1e-4
    second = layer(QTensor(x.codes[:, 12:], x.scale), x.codes[:, 9:12])
    assert torch.equal(second.codes, codes[:, 12:])


def small(family: str, directory: Path, **changes: Any) -> LoadedModel:
    return load_model(str(write_checkpoint(directory, small_config(family, **changes))))


def tokens(n: int = 12, seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 4000, (40 + 30 * (i % 4),), generator=generator).tolist() for i in range(n)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("observer", ["ema", "exact", "minmax"])
def test_every_watched_tensor_is_reported(family: str, observer: Any, tmp_path: Path) -> None:
    """With any observer each layer asked for brings all its tensors with true extremes, and the head comes last."""
    loaded = small(family, tmp_path)
    recipe = Recipe(observer=observer, percentile_alpha=0.99)
    events = list(quantize(loaded.model, recipe, batch_documents(tokens(), 5), report_layers={1}))
    reports = [event for event in events if isinstance(event, LayerReport)]
    assert [r.name for r in reports] == [f"layer_1.{op}" for op in SITES[loaded.config.family]] + ["lm_head:input"]
    for report in reports:
        assert report.before.min <= report.after.min <= report.after.max <= report.before.max
        assert report.absmax == max(-report.before.min, report.before.max)
        assert report.scale > 0
        assert math.isfinite(report.sqnr_db)
    percentiles = {r.name for r in reports if r.percentile_alpha == 0.99}
    expected = {f"layer_1.{op}" for op, percentile in SITES[loaded.config.family].items() if percentile}
    assert percentiles == (set() if observer == "minmax" else expected)
    assert {r.observer for r in reports if r.name in expected} == {observer}
    progress = [event for event in events if isinstance(event, ProgressReport)]
    assert progress[0] == ProgressReport("calibrate", 0, 12, "documents")
    assert progress[-1] == ProgressReport("quantize", 2, 2, "layers")


@pytest.mark.parametrize("family", FAMILIES)
def test_batch_size_does_not_change_the_statistics(family: str, tmp_path: Path) -> None:
    """Batch 1 and batch 16, documents of many lengths: the same extremes, clips and moments."""
    loaded = small(family, tmp_path)
    recipe = Recipe(percentile_alpha=0.99, observer="exact")
    sweeps = []
    for batch_size in (1, 16):
        calibration = Calibration(loaded.model, [recipe], batch_documents(tokens(), batch_size), {0, 1})
        list(calibration.run())
        sweeps.append(calibration)
    for key in sweeps[0].observers:
        one, many = (sweep.report(recipe, *key) for sweep in sweeps)
        assert one.count == many.count
        for field in ("absmax", "scale", "mean", "std", "median", "p99"):
            assert getattr(one, field) == pytest.approx(getattr(many, field), rel=1e-4, abs=1e-6)
        assert one.before.min == pytest.approx(many.before.min, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_states_of_the_calibration_are_those_of_the_documents(family: str, tmp_path: Path) -> None:
    """What the state's observer sees is the state after each stride and after the last real token, padding or not."""
    loaded = small(family, tmp_path)
    documents = [tokens(1)[0] * 5, tokens(1, seed=1)[0]]
    seen: list[torch.Tensor] = []

    def tap(layer: int, columns: Mapping[str, int], values: torch.Tensor, counts: torch.Tensor | None) -> None:
        if layer == 1 and "ssm_state_act:input" in columns:
            assert counts is not None
            seen.extend(values[row, : int(count)] for row, count in enumerate(counts))

    batch = batch_documents(documents, 2)[0]
    loaded.model.hidden_states(batch.input_ids, batch.lengths, tap=tap)
    for document, states in zip(documents, seen, strict=True):
        ends = [*range(128, len(document), 128), len(document)]
        assert len(states) == len(ends)
        for end, state in zip(ends, states, strict=True):
            cache = loaded.model.new_cache(1)
            loaded.model.prefill(torch.tensor([document[:end]]), None, cache)
            expected = cache.layers[1].state
            assert isinstance(expected, torch.Tensor)
            assert torch.allclose(state, expected[0], atol=1e-4)


def calibration_ids(loaded: LoadedModel, number: int, length: int) -> list[list[int]]:
    texts = [json.loads(line)["text"] for line in DOCUMENTS.read_text(encoding="utf-8").splitlines()[:number]]
    return [document[:length] for document in loaded.tokenizer.encode_batch(texts)]


@pytest.mark.parametrize("name", ["mamba-2m", "mamba2-4m"])
def test_quantized_prefill_and_steps_agree(name: str) -> None:
    """A quantized model keeps codes between calls; going on from them stays within what rounding the state costs."""
    loaded = load_model(str(MODELS / name))
    ids = calibration_ids(loaded, 10, 128)
    list(quantize(loaded.model, Recipe(), batch_documents(ids[:8], 8)))
    input_ids = torch.tensor(ids[8:])[:, :60]
    full = loaded.model(input_ids)
    cache = loaded.model.new_cache(2)
    logits = [loaded.model.prefill(input_ids[:, :40], None, cache)]
    logits += [loaded.model.step(input_ids[:, t], cache) for t in range(40, 60)]
    first: LayerCache = cache.layers[0]
    assert isinstance(first.state, QTensor)
    assert first.conv is not None
    assert (first.conv.dtype, first.state.codes.dtype) == (torch.int8, torch.int8)
    stepped = torch.stack(logits, dim=1)
    assert torch.allclose(stepped[:, 0], full[:, 39], atol=1e-3)
    noise = (stepped - full[:, 39:]).square().sum() / full[:, 39:].square().sum()
    assert 0 < noise < 0.02


@pytest.mark.parametrize(("name", "limit"), [("mamba-2m", 1.06), ("mamba2-4m", 1.04)])
def test_a_quantized_trained_model_predicts_nearly_as_well(name: str, limit: float) -> None:
    """W8A8 costs the shipped models a few per cent of perplexity, and a third or less of the layers' memory."""
    loaded = load_model(str(MODELS / name))
    ids = calibration_ids(loaded, 40, 256)
    held_out = torch.tensor(ids[32:])

    def nll() -> float:
        logits = loaded.model(held_out)[:, :-1].flatten(0, 1)
        return float(torch.nn.functional.cross_entropy(logits, held_out[:, 1:].flatten()))

    before, bytes_before = nll(), size_bytes(loaded.model)
    list(quantize(loaded.model, Recipe(), batch_documents(ids[:32], 16)))
    assert 1.0 < math.exp(nll() - before) < limit
    ends = loaded.model.embedding.weight.nbytes
    assert size_bytes(loaded.model) - 2 * ends < 0.3 * (bytes_before - ends)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_is_quantized_once(family: str, tmp_path: Path) -> None:
    """Codes are not taken for weights: a second conversion is refused."""
    loaded = small(family, tmp_path)
    batches = batch_documents(tokens(2), 2)
    list(quantize(loaded.model, Recipe(), batches))
    with pytest.raises(TypeError, match="quantized already"):
        list(quantize(loaded.model, Recipe(), batches))


@pytest.mark.parametrize(
    "wrong",
    [
        {"percentile_alpha": 0.0},
        {"percentile_alpha": 1.5},
        {"percentile_alpha": -0.1},
        {"percentile_alpha": math.nan},
        {"percentile_alpha": math.inf},
        {"w_bits": 3},
        {"a_bits": 4},
        {"observer": "histogram"},
    ],
)
def test_impossible_recipes_cannot_be_built(wrong: dict[str, Any]) -> None:
    """Each says what was wrong and what can be built."""
    with pytest.raises(RecipeError, match=r"must be|cannot be built; use one of"):
        Recipe(**wrong)


def test_the_default_alpha_goes_by_the_models_width() -> None:
    """Small models lose more by clipping; what the user gives is used as it is."""
    assert Recipe().clippings_for(768) == (Clipping("ema", 0.99999),)
    assert Recipe(observer="exact").clippings_for(1024) == (Clipping("exact", 0.9995),)
    assert Recipe(percentile_alpha=0.9).clippings_for(2560) == (Clipping("ema", 0.9),)
    assert Recipe(percentile_alpha=0.9, observer="minmax").clippings_for(768) == (MINMAX,)


def test_the_default_observer_goes_by_the_head_groups() -> None:
    """An ema, comparable with the papers; with head groups, which are known after the sweep, the exact quantile."""
    assert Recipe(group_heads=True, percentile_alpha=0.9).clippings_for(768) == (Clipping("exact", 0.9),)
    assert Recipe(group_heads=True, percentile_alpha=0.9) == Recipe(
        group_heads=True, percentile_alpha=0.9, observer="exact"
    )
    assert Recipe(group_heads=True).clippings_for(768) == (MINMAX,)
    with pytest.raises(RecipeError, match="leave observer out"):
        Recipe(group_heads=True, percentile_alpha=0.9, observer="ema")


@pytest.mark.parametrize("alpha", [None, 0.95])
def test_head_groups_of_states_with_a_single_column(alpha: float | None, tmp_path: Path) -> None:
    """A state of one column is still a table by head, channel and column; the model computes with it."""
    config = small_config("mamba2", ssm_d_state=1)
    model = load_model(str(write_checkpoint(tmp_path / "narrow", config)), device="cpu").model
    ids = torch.arange(40).view(2, 20)
    expected = model(ids)
    for _ in quantize(model, Recipe(group_heads=True, percentile_alpha=alpha), batch_documents(ids.tolist(), 2, 20)):
        pass
    mixer, sizes = model.layers[0].mixer, model.config
    assert mixer.state_scale.shape == (sizes.nheads, sizes.headdim, 1)
    found = model(ids)
    assert ((found - expected).square().sum() / expected.square().sum()).item() < 0.1


def test_documents_become_batches_in_their_order() -> None:
    """Cut, padded and counted; empty ones are left out, and nothing at all is an error."""
    batches = batch_documents([[1, 2, 3], [], [4], [5, 6, 7, 8, 9]], 2, max_tokens=4)
    assert [batch.lengths.tolist() for batch in batches] == [[3, 1], [4]]
    assert batches[0].input_ids.tolist() == [[1, 2, 3], [4, 0, 0]]
    assert batches[1].input_ids.tolist() == [[5, 6, 7, 8]]
    with pytest.raises(DataError, match="no tokens"):
        batch_documents([[], []], 2)
