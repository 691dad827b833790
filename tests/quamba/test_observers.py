"""Observers: exact where they say so, and independent of batching."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quamba.observers.observer import Observer
from quamba.observers.sample import sample_positions
from quamba.observers.tail import Rank, Tail, abs_quantile, block_maxima, largest

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
    assert torch.equal(largest(x, count), expected)
    assert block_maxima(x).amax() == x.abs().amax()


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 400), seed=st.integers(0, 1 << 30))
def test_the_tail_of_a_stream_is_the_tail_of_all(size: int, seed: int) -> None:
    """However a stream is cut into documents, its tail is that of all values, and counts above it are exact."""
    generator = torch.Generator().manual_seed(seed)
    documents = [torch.randn(1, int(n), 7, generator=generator) * (1 + i) for i, n in enumerate((80, 3, 200, 64, 500))]
    tail = Tail(size)
    for document in documents:
        tail.update(document)
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


def observe(kind: str, alpha: float, documents: list[torch.Tensor], batch: int, detailed: bool = True) -> Observer:
    observer = Observer(kind, alpha, sum(len(d) for d in documents), len(documents), detailed)  # type: ignore[arg-type]
    for start in range(0, len(documents), batch):
        part = documents[start : start + batch]
        counts = torch.tensor([len(d) for d in part])
        values = torch.full((len(part), int(counts.max()), 24), 1e9)
        for row, document in enumerate(part):
            values[row, : len(document)] = document
        observer.update(values, counts)
    return observer


@pytest.mark.parametrize("kind", ["ema", "exact", "minmax"])
def test_statistics_do_not_depend_on_batches(kind: str) -> None:
    """Batch 1 and batch 16 see the same documents, and padding is no part of them."""
    documents = make_documents()
    one, many = (observe(kind, 0.99, documents, batch).report("t") for batch in (1, 16))
    assert one == many


@pytest.mark.parametrize("alpha", [0.5, 0.99, 0.9995])
def test_the_exact_observer_is_the_quantile_of_everything(alpha: float) -> None:
    """Documents of any lengths, one quantile: torch.quantile's over all values; and the clipped share is counted."""
    documents = make_documents()
    everything = torch.cat([d.flatten() for d in documents])
    observer = observe("exact", alpha, documents, 4)
    clip = observer.clip()
    assert clip == float(torch.quantile(everything.abs(), alpha))
    assert observer.report("t").measured_clipped_ratio == float((everything.abs() > clip).double().mean())


@pytest.mark.parametrize("alpha", [0.99, 0.9995])
def test_the_moving_average_is_a_scalar_loop(alpha: float) -> None:
    """ema: the first document's quantile, then a hundredth of the way to each further one."""
    documents = make_documents()
    average = float(torch.quantile(documents[0].abs(), alpha))
    for document in documents[1:]:
        average += 0.01 * (float(torch.quantile(document.abs(), alpha)) - average)
    observer = observe("ema", alpha, documents, 5)
    assert observer.clip() == pytest.approx(average, rel=1e-12)
    everything = torch.cat([d.flatten() for d in documents])
    expected = float((everything.abs() > observer.clip()).double().mean())
    assert observer.report("t").measured_clipped_ratio == pytest.approx(expected)


def test_documents_unlike_each_other_are_counted_on_the_sample() -> None:
    """Where an ema clips far more than its alpha says, the clipped share is still measured, if not exactly."""
    documents = make_documents(spread=0.5)
    everything = torch.cat([d.flatten() for d in documents])
    observer = observe("ema", 0.9995, documents, 5)
    expected = float((everything.abs() > observer.clip()).double().mean())
    report = observer.report("t")
    assert expected > 0.05
    assert report.measured_clipped_ratio == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("kind", ["ema", "exact", "minmax"])
def test_alpha_one_is_the_true_maximum(kind: str) -> None:
    """No observer clips at alpha 1.0; the range is reduced by nothing."""
    documents = make_documents()
    report = observe(kind, 1.0, documents, 3).report("t")
    assert report.absmax == max(float(d.abs().max()) for d in documents)
    assert (report.range_reduction, report.clipped_ratio, report.measured_clipped_ratio) == (0.0, 0.0, 0.0)
    assert report.scale == pytest.approx(report.absmax / 127)


def test_reports_hold_true_statistics() -> None:
    """Extremes are signed and true; moments are those of all elements; what is sampled is close to what is true."""
    documents = [torch.randn(400, 50, generator=torch.Generator().manual_seed(i)) + 3 for i in range(16)]
    everything = torch.cat([d.flatten() for d in documents])
    observer = Observer("exact", 0.999, 6400, 16, detailed=True)
    observer.update(torch.stack(documents), None)
    report = observer.report("layer_0.x_proj:input")
    assert (report.before.min, report.before.max) == (float(everything.min()), float(everything.max()))
    assert report.count == everything.numel()
    assert report.mean == pytest.approx(float(everything.double().mean()), rel=1e-5)
    assert report.std == pytest.approx(float(everything.double().std()), rel=1e-4)
    assert report.median == pytest.approx(float(everything.median()), abs=0.05)
    assert report.p99 == pytest.approx(float(torch.quantile(everything, 0.99)), abs=0.1)
    codes = (everything / report.scale).round().clamp(-128, 127)
    noise = (everything - codes * report.scale).square().sum()
    assert report.sqnr_db == pytest.approx(float(10 * torch.log10(everything.square().sum() / noise)), abs=1.0)
    assert report.after.max == pytest.approx(report.scale * 127)
    assert report.after.min == report.before.min


def test_a_constant_tensor_has_a_report() -> None:
    """Zeros have a scale, and no reduction that divides by nothing."""
    observer = Observer("exact", 0.99, 100, 1, detailed=True)
    observer.update(torch.zeros(1, 100, 3), None)
    report = observer.report("t")
    assert report.scale >= 1e-8
    assert (report.range_reduction, report.absmax, report.measured_clipped_ratio) == (0.0, 0.0, 0.0)


def test_an_observer_that_saw_nothing_says_so() -> None:
    """There is no clipping interval without data."""
    with pytest.raises(ValueError, match="seen nothing"):
        Observer("ema", 0.99, 10, 1, detailed=True).clip()
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
