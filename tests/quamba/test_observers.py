"""Observers: exact where they say so, and independent of batching."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quamba.errors import RecipeError
from quamba.observers.clipping import MINMAX, Clipping, ObserverKind
from quamba.observers.documents import Documents
from quamba.observers.observer import Observer
from quamba.observers.report import Loss, least_loss, report
from quamba.observers.sample import sample_positions
from quamba.observers.select import largest_indices, largest_values
from quamba.observers.station import Station
from quamba.observers.tail import Rank, Tail, abs_quantile, largest, largest_of_all
from quamba.reports import LayerReport

alphas = st.sampled_from([0.01, 0.5, 0.9, 0.99, 0.9995, 0.99999, 1.0])


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 400), channels=st.integers(1, 20), alpha=alphas, seed=st.integers(0, 1 << 30))
def test_the_quantile_is_torchs(rows: int, channels: int, alpha: float, seed: int) -> None:
    """Selecting the tail gives the very float that torch.quantile gives."""
    x = torch.randn(rows, channels, generator=torch.Generator().manual_seed(seed)) ** 3
    assert abs_quantile(x, alpha) == torch.quantile(x.abs().flatten(), alpha)


def test_the_quantile_is_torchs_with_ties_and_constants() -> None:
    """Ties, zeros and constants have quantiles too."""
    for x in (torch.zeros(1000), torch.full((777,), -2.5), torch.randint(-3, 4, (5000,)).float(), torch.ones(1)):
        for alpha in (0.3, 0.999, 1.0):
            assert abs_quantile(x, alpha) == torch.quantile(x.abs(), alpha)


def test_the_quantile_has_no_limit_on_elements() -> None:
    """2^27 elements, where torch.quantile refuses more than 2^24: equal to the order statistics of known values."""
    n = 1 << 27
    x = torch.empty(n, dtype=torch.float32)
    # |x| takes the values 0..2^23-1, each 16 times, in scattered order: every order statistic is known.
    x.copy_(torch.arange(n) * 5 % (1 << 23))
    for alpha in (0.9995, 0.99999):
        position = alpha * (n - 1)
        low, high = float(math.floor(position) // 16), float((math.floor(position) + 1) // 16)
        expected = low + (position - math.floor(position)) * (high - low)
        assert float(abs_quantile(x, alpha)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.long
def test_the_quantile_is_torchs_at_its_limit() -> None:
    """At 2^24 elements, the most that torch.quantile takes, the two are still the same float."""
    x = torch.randn(1 << 24, generator=torch.Generator().manual_seed(0))
    for alpha in (0.9995, 0.99999):
        assert abs_quantile(x, alpha) == torch.quantile(x.abs(), alpha)


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 300), channels=st.integers(1, 9), share=st.floats(0, 1), seed=st.integers(0, 1 << 30))
def test_the_largest_elements_are_found_through_blocks(rows: int, channels: int, share: float, seed: int) -> None:
    """Looking only into blocks with large maxima misses nothing."""
    x = torch.randn(2, rows, channels, generator=torch.Generator().manual_seed(seed))
    count = max(1, int(share * rows * channels * 0.2))
    expected = x.flatten(1).abs().sort(dim=1, descending=True).values[:, :count]
    documents = Documents.of(x)
    assert torch.equal(largest(documents, count), expected)
    assert torch.equal(largest_of_all(documents, count), expected.flatten().sort(descending=True).values[:count])
    assert documents.block_maxima.amax() == x.abs().amax()
    assert torch.equal(documents.high, x.amax(dim=(0, 1)))
    assert torch.equal(documents.low, x.amin(dim=(0, 1)))


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 5000), rows=st.integers(1, 3), share=st.floats(0, 1), seed=st.integers(0, 1 << 30))
def test_selection_is_that_of_a_sort(n: int, rows: int, share: float, seed: int) -> None:
    """Rows of any length, folded or not: the largest values in order, and places that hold them."""
    n = n * 16 if n % 2 else n
    x = torch.randint(-50, 50, (rows, n), generator=torch.Generator().manual_seed(seed)).float()
    count = max(1, min(n, int(share * n / (100 if n % 16 == 0 else 1))))
    expected = x.sort(dim=1, descending=True).values[:, :count]
    assert torch.equal(largest_values(x, count), expected)
    places = largest_indices(x, count)
    assert all(len(set(row)) == count for row in places.tolist())
    assert torch.equal(x.gather(1, places).sort(dim=1, descending=True).values, expected)


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 400), seed=st.integers(0, 1 << 30))
def test_the_tail_of_a_stream_is_the_tail_of_all(size: int, seed: int) -> None:
    """However a stream is cut into documents, its tail is that of all values, and counts above it are exact."""
    generator = torch.Generator().manual_seed(seed)
    documents = [torch.randn(1, int(n), 7, generator=generator) * (1 + i) for i, n in enumerate((80, 3, 200, 64, 500))]
    tail = Tail(size)
    for document in documents:
        tail.update(Documents.of(document))
    everything = torch.cat([d.flatten() for d in documents]).abs().sort(descending=True).values
    assert torch.equal(tail.descending(size), everything[:size])
    threshold = float(everything[size // 2])
    above = tail.above(threshold)
    assert above is not None
    assert above.numel() == int((everything > threshold).sum())
    if size < len(everything):
        assert tail.above(float(everything[-1]) / 2) is None


def make_documents(seed: int = 0, spread: float = 0.02) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = [300, 300, 17, 90] * 3
    return [torch.randn(n, 24, generator=generator) * (1 + spread * i) + 0.05 for i, n in enumerate(lengths)]


def clipping(kind: ObserverKind, alpha: float) -> Clipping:
    return MINMAX if kind == "minmax" else Clipping(kind, alpha)


def watch(observer: Observer, values: torch.Tensor, counts: torch.Tensor | None = None) -> Observer:
    Station({observer: values.shape[2]}).update(values, counts)
    return observer


def observe(clippings: list[Clipping], documents: list[torch.Tensor], batch: int, detailed: bool = True) -> Observer:
    width = documents[0].shape[1]
    observer = Observer(clippings, sum(len(d) for d in documents), len(documents), detailed)
    station = Station({observer: width})
    for start in range(0, len(documents), batch):
        part = documents[start : start + batch]
        counts = torch.tensor([len(d) for d in part])
        values = torch.full((len(part), int(counts.max()), width), 1e9)
        for row, document in enumerate(part):
            values[row, : len(document)] = document
        station.update(values, counts)
    return observer


def reported(way: Clipping, documents: list[torch.Tensor], batch: int) -> LayerReport:
    return report(observe([way], documents, batch), "t", way)


@pytest.mark.parametrize("kind", ["ema", "exact", "minmax"])
def test_statistics_do_not_depend_on_batches(kind: ObserverKind) -> None:
    """Batch 1 and batch 16 see the same documents, and padding is no part of them."""
    for spread in (0.02, 0.5):
        documents = make_documents(spread=spread)
        one, many = (reported(clipping(kind, 0.99), documents, batch) for batch in (1, 16))
        assert one == many


@pytest.mark.parametrize("alpha", [0.5, 0.99, 0.9995])
def test_the_exact_observer_is_the_quantile_of_everything(alpha: float) -> None:
    """Documents of any lengths, one quantile: torch.quantile's over all values; and the clipped share is counted."""
    documents = make_documents()
    everything = torch.cat([d.flatten() for d in documents])
    way = Clipping("exact", alpha)
    observer = observe([way], documents, 4)
    clip = observer.clip(way)
    assert clip == float(torch.quantile(everything.abs(), alpha))
    assert report(observer, "t", way).measured_clipped_ratio == float((everything.abs() > clip).double().mean())


@pytest.mark.parametrize("alpha", [0.99, 0.9995])
def test_the_moving_average_is_a_scalar_loop(alpha: float) -> None:
    """ema: the first document's quantile, then a hundredth of the way to each further one."""
    documents = make_documents()
    average = float(torch.quantile(documents[0].abs(), alpha))
    for document in documents[1:]:
        average += 0.01 * (float(torch.quantile(document.abs(), alpha)) - average)
    way = Clipping("ema", alpha)
    observer = observe([way], documents, 5)
    assert observer.clip(way) == pytest.approx(average, rel=1e-12)
    everything = torch.cat([d.flatten() for d in documents])
    expected = float((everything.abs() > observer.clip(way)).double().mean())
    assert report(observer, "t", way).measured_clipped_ratio == pytest.approx(expected)


def test_documents_unlike_each_other_are_counted_on_the_sample() -> None:
    """Where an ema clips far more than its alpha says, the clipped share is still measured, if not exactly."""
    documents = make_documents(spread=0.5)
    everything = torch.cat([d.flatten() for d in documents])
    way = Clipping("ema", 0.9995)
    observer = observe([way], documents, 5)
    expected = float((everything.abs() > observer.clip(way)).double().mean())
    assert expected > 0.05
    assert report(observer, "t", way).measured_clipped_ratio == pytest.approx(expected, rel=0.1)


def test_one_sweep_serves_any_number_of_clippings() -> None:
    """Asked for together, intervals are those that each gets alone; one that was not asked for is refused."""
    documents = make_documents()
    ways = [Clipping(kind, alpha) for kind in ("ema", "exact") for alpha in (0.9, 0.99, 0.9995, 1.0)] + [MINMAX]
    together = observe(ways, documents, 4)
    for way in ways:
        assert together.clip(way) == observe([way], documents, 3).clip(way)
    with pytest.raises(ValueError, match="not asked for"):
        together.clip(Clipping("exact", 0.5))


def test_the_least_loss_is_found_among_candidates() -> None:
    """Few outliers far away are worth clipping; a tensor without outliers is best left whole."""
    ways = [Clipping("exact", alpha) for alpha in (0.9, 0.999, 1.0)]
    plain = [torch.rand(400, 50, generator=torch.Generator().manual_seed(i)) * 2 - 1 for i in range(8)]

    def best(observer: Observer, candidates: list[Clipping]) -> Clipping:
        return least_loss(candidates, lambda way: Loss.of(observer, observer.clip(way)))

    assert best(observe(ways, plain, 4), [ways[0], ways[2]]).percentile_alpha == 1.0
    far = [d.clone() for d in plain]
    far[0][0, 0] = 200.0
    observer = observe(ways, far, 4)
    assert best(observer, ways).percentile_alpha == 0.999
    everything = torch.cat([d.flatten() for d in far])
    clip = observer.clip(ways[1])
    codes = (everything * 127 / clip).round().clamp(-128, 127)
    expected = float((everything - codes * clip / 127).square().mean())
    assert Loss.of(observer, clip).noise == pytest.approx(expected, rel=0.05)


def test_parts_of_one_tensor_are_watched_as_if_alone() -> None:
    """A station's columns are tensors of their own: extremes of each channel, intervals and reports."""
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(3, 70, 12, generator=generator) * torch.arange(1, 13)
    counts = torch.tensor([70, 33, 70])
    way = Clipping("exact", 0.99)
    parts = {"a": (0, 5), "b": (5, 6), "c": (11, 1)}
    observers = {name: Observer([way if name == "b" else MINMAX], 173, 3, name != "c") for name in parts}
    Station({observers[name]: width for name, (_, width) in parts.items()}).update(values, counts)
    real = torch.cat([row[:n] for row, n in zip(values, counts.tolist(), strict=True)])
    for name, (start, width) in parts.items():
        low, high = observers[name].column_extremes()
        part = real[:, start : start + width]
        assert torch.equal(low, part.amin(dim=0))
        assert torch.equal(high, part.amax(dim=0))
        assert observers[name].count == part.numel()
    alone = watch(Observer([way], 173, 3, True), values[:, :, 5:11].contiguous(), counts)
    assert report(observers["b"], "b", way) == report(alone, "b", way)
    assert observers["c"].clip(MINMAX) == float(real[:, 11].abs().max())


@pytest.mark.parametrize("kind", ["ema", "exact", "minmax"])
def test_alpha_one_is_the_true_maximum(kind: ObserverKind) -> None:
    """No observer clips at alpha 1.0; the range is reduced by nothing."""
    documents = make_documents()
    found = reported(clipping(kind, 1.0), documents, 3)
    assert found.absmax == max(float(d.abs().max()) for d in documents)
    assert (found.range_reduction, found.clipped_ratio, found.measured_clipped_ratio) == (0.0, 0.0, 0.0)
    assert found.scale == pytest.approx(found.absmax / 127)


def test_reports_hold_true_statistics() -> None:
    """Extremes are signed and true; moments are those of all elements; what is sampled is close to what is true."""
    documents = [torch.randn(400, 50, generator=torch.Generator().manual_seed(i)) + 3 for i in range(16)]
    everything = torch.cat([d.flatten() for d in documents])
    way = Clipping("exact", 0.999)
    found = report(watch(Observer([way], 6400, 16, True), torch.stack(documents)), "layer_0.x_proj:input", way)
    assert (found.before.min, found.before.max) == (float(everything.min()), float(everything.max()))
    assert found.count == everything.numel()
    assert found.mean == pytest.approx(float(everything.double().mean()), rel=1e-5)
    assert found.std == pytest.approx(float(everything.double().std()), rel=1e-4)
    assert found.median == pytest.approx(float(everything.median()), abs=0.05)
    assert found.p99 == pytest.approx(float(torch.quantile(everything, 0.99)), abs=0.1)
    codes = (everything / found.scale).round().clamp(-128, 127)
    noise = (everything - codes * found.scale).square().sum()
    assert found.sqnr_db == pytest.approx(float(10 * torch.log10(everything.square().sum() / noise)), abs=1.0)
    assert found.after.max == pytest.approx(found.scale * 127)
    assert found.after.min == found.before.min


def test_a_constant_tensor_has_a_report() -> None:
    """Zeros have a scale, and no reduction that divides by nothing."""
    way = Clipping("exact", 0.99)
    found = report(watch(Observer([way], 100, 1, True), torch.zeros(1, 100, 3)), "t", way)
    assert found.scale >= 1e-8
    assert (found.range_reduction, found.absmax, found.measured_clipped_ratio) == (0.0, 0.0, 0.0)


def test_an_observer_that_saw_nothing_says_so() -> None:
    """There is no clipping interval without data."""
    with pytest.raises(ValueError, match="seen nothing"):
        Observer([Clipping("ema", 0.99)], 10, 1, True).clip(Clipping("ema", 0.99))
    with pytest.raises(RecipeError, match="clips nothing"):
        Clipping("minmax", 0.9)
    with pytest.raises(ValueError, match="alpha must be"):
        abs_quantile(torch.ones(3), 0.0)
    with pytest.raises(ValueError, match="no elements"):
        abs_quantile(torch.ones(0), 0.5)


def test_ranks_and_sample_positions() -> None:
    """A rank needs no more than its tail; samples take each position once, over all channels."""
    assert Rank.of(1.0, 10).tail == 1
    assert Rank.of(0.5, 3) == Rank(lo=1, weight=0.0, tail=2)
    for n in (10, 1024, 384 * 512, 1 << 20):
        positions = sample_positions(n, torch.device("cpu"))
        assert len(set(positions.tolist())) == min(n, 1024)
        assert 0 <= int(positions.min()) <= int(positions.max()) < n
    assert len(set((sample_positions(384 * 512, torch.device("cpu")) % 384).tolist())) > 300
