"""What kernels keep of a sweep is, bit for bit, what stations keep; interpreted where there is no GPU."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from quamba.flow import calibrate
from quamba.flow.batches import batch_documents, merge_batches
from quamba.flow.calibrate import Calibration
from quamba.flow.recipe import AUTO_ALPHAS, Recipe
from quamba.models.config import Family
from quamba.models.published import published_config
from quamba.observers import device_tail, tail_plan, watching
from quamba.observers.clipping import MINMAX, Clipping
from quamba.observers.device_sweep import DeviceSweep
from quamba.observers.observer import Observer
from quamba.observers.station import Station
from tests.quamba.test_artifacts import base

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
ALPHAS = (*AUTO_ALPHAS, 0.995, 0.99) if GPU else (0.99, 0.9999, 1.0)


def watched(
    documents: list[torch.Tensor], parts: list[tuple[int, tuple[Clipping, ...], bool]], batch: int, device: str | None
) -> tuple[list[Observer], list[Any]]:
    """Observers of parts of these documents, by stations on the CPU or by kernels; and what is to be watched anew."""
    total = sum(len(document) for document in documents)
    observers = {Observer(ways, total, len(documents), detailed): width for width, ways, detailed in parts}
    station, sweep = Station(observers), DeviceSweep(len(documents))
    for start in range(0, len(documents), batch):
        some = documents[start : start + batch]
        lengths = [len(document) for document in some]
        values = torch.nn.utils.rnn.pad_sequence(some, batch_first=True, padding_value=1e6)
        counts = None if min(lengths) == max(lengths) else torch.tensor(lengths)
        if device is None:
            station.update(values, counts)
            continue
        on_device = None if counts is None else counts.to(device)
        sweep.watch("a", lambda: observers, values.to(device), on_device, lengths)
    return list(observers), [] if device is None else sweep.finish()


def make(kind: str, lengths: list[int], channels: int) -> list[torch.Tensor]:
    documents = [torch.randn(length, channels) * 1.1**number for number, length in enumerate(lengths)]
    if kind == "ties":
        return [(document * 4).round() / 4 for document in documents]
    if kind == "outliers":
        for document in documents:
            document[:, 5] *= 100
            document[0, 7] = 3.4e38
    if kind == "zeros":
        documents[0].zero_()
    return documents


@pytest.mark.parametrize("kind", ["ties", "zeros", pytest.param("outliers", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(
    ("lengths", "channels"),
    [
        pytest.param([40, 33, 1], 72, id="small"),
        pytest.param([512, 512, 17, 300, 512, 1], 2048, id="real", marks=pytest.mark.gpu),
        pytest.param([4, 4, 4, 1], 32768, id="states", marks=pytest.mark.gpu),
    ],
)
def test_a_sweep_of_kernels_is_that_of_stations(kind: str, lengths: list[int], channels: int) -> None:
    """Extremes, counts and every document's quantiles are equal, whatever the batches, or asked to be taken anew."""
    documents = make(kind, lengths, channels + 11)
    ways = tuple(Clipping("ema", alpha) for alpha in ALPHAS)
    parts = [(8, (MINMAX,), False), (channels, ways, True), (3, (MINMAX,), False)]
    expected, _ = watched(documents, parts, 2, None)
    for batch in (1, 2, len(documents)) if GPU else (1, 3):
        found, again = watched(documents, parts, batch, DEVICE)
        if kind == "zeros" and again:
            continue
        assert not again
        for one, other in zip(found, expected, strict=True):
            assert one.count == other.count
            assert one.before() == other.before()
            for mine, theirs in zip(one.column_extremes(), other.column_extremes(), strict=True):
                assert torch.equal(mine.cpu(), theirs)
            for alpha in one.alphas:
                mine, theirs = (o._quantiles[alpha].values() for o in (one, other))
                assert torch.equal(mine.cpu(), theirs), alpha
            for way in one.clippings:
                assert one.clip(way) == other.clip(way)
            if one.detailed:
                # Sums are of the same numbers in another order.
                torch.testing.assert_close(torch.tensor(one.moments()), torch.tensor(other.moments()))
                assert torch.equal(one.sample.values().cpu(), other.sample.values())
                for clip in (one.clip(Clipping("ema", 0.99)), 1e6):
                    mine, theirs = (o.above(clip) for o in (one, other))
                    assert (mine is None) == (theirs is None)
                    assert mine is None or torch.equal(mine.sort().values.cpu(), theirs.sort().values)


def test_tails_too_large_for_blocks_are_sorted() -> None:
    """Quantiles near the middle are exact too."""
    documents, ways = make("normal", [64, 64, 20], 200), (Clipping("ema", 0.6), Clipping("ema", 0.99))
    expected, _ = watched(documents, [(200, ways, True)], 2, None)
    found, again = watched(documents, [(200, ways, True)], 2, DEVICE)
    assert not again
    for way in ways:
        assert found[0].clip(way) == expected[0].clip(way)
        assert torch.equal(found[0].above(1.0).sort().values.cpu(), expected[0].above(1.0).sort().values)


def test_what_is_not_finite_is_watched_anew() -> None:
    """Infinite numbers, and what is none."""
    for odd in (torch.nan, torch.inf, -torch.inf):
        documents = make("normal", [10, 12], 140)
        documents[1][3, 2] = odd
        assert watched(documents, [(140, (MINMAX,), False)], 2, DEVICE)[1] == ["a"]


@pytest.mark.parametrize(
    ("family", "fault", "again"),
    [("mamba1", None, 0), ("mamba2", None, 0), ("mamba1", "no room", 4), ("mamba1", "raises", 15)],
)
def test_a_calibration_is_the_same(
    family: Family, fault: str | None, again: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scales of all tensors and reports are those of stations.

    Also where buffers overflow or a kernel gives up in the middle of a sweep, and what was lost is watched anew.
    """
    model = base(tmp_path, family).model.to(DEVICE)
    recipes = [Recipe(percentile_alpha=alpha) for alpha in (0.9, 0.999)]
    recipes += [Recipe(group_heads=True)] if family == "mamba2" else []
    documents = [[(7 * row + 3 * place) % 500 for place in range(length)] for row, length in enumerate((9, 130))]
    batches = batch_documents(documents, 2)

    def scales(device: bool) -> dict[Any, Any]:
        made: list[DeviceSweep] = []

        def sweep_of(_: torch.device, count: int) -> DeviceSweep | None:
            made.extend([DeviceSweep(count)] if device else [])
            return made[0] if device else None

        monkeypatch.setattr(calibrate, "device_sweep", sweep_of)
        calibration = Calibration(model, recipes, batches, (0,))
        for _ in calibration.run():
            pass
        anew.append(calibration.watched_anew)
        found: dict[Any, Any] = {}
        for layer, op in calibration.observers:
            for recipe in recipes:
                found[layer, op, recipe] = calibration.scale(recipe, layer, op).tolist()
                if layer == 0:
                    report = calibration.report(recipe, layer, op)
                    # A sum over the tail, whose order is another.
                    found[layer, op, recipe, "report"] = replace(report, sqnr_db=round(report.sqnr_db, 6))
        return found

    anew: list[int] = []
    if fault == "no room":
        monkeypatch.setattr(tail_plan, "_MORE_ROOM", 1)
        monkeypatch.setattr(tail_plan, "_ROOM", 0)
        monkeypatch.setattr(tail_plan, "_LEAST_SHARE", 0)
    if fault == "raises":
        calls: list[None] = []

        def select(*given: Any) -> None:
            calls.append(None)
            if len(calls) > 3:
                raise RuntimeError("no such instruction")
            device_tail_select(*given)

        device_tail_select = device_tail.select
        monkeypatch.setattr(device_tail, "select", select)
    expected, found = scales(False), scales(True)
    assert found == expected
    assert anew == [0, again]


@pytest.mark.parametrize("fault", ["raises", "quantiles", "extremes"])
def test_kernels_that_fail_are_found_out(
    fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that cannot be compiled, or finds others than plain PyTorch: everything is watched anew, which is said."""

    def failing(*_: Any, **__: Any) -> None:
        if fault == "raises":
            raise RuntimeError("no such instruction\nwith a long story")

    name = {"quantiles": "device_tail.select", "extremes": "device_sweep.extremes", "raises": "device_tail.threshold"}
    monkeypatch.setattr(f"quamba.observers.{name[fault]}", failing)
    ways = (Clipping("ema", 0.9),)
    assert watched(make("normal", [12, 9], 40), [(40, ways, False)], 1, DEVICE)[1] == ["a"]
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("kernels do not watch activations")
    assert "\n" not in line


@pytest.mark.parametrize(("capability", "importable"), [((7, 0), True), ((9, 0), False), ((9, 0), True)])
def test_stations_watch_where_kernels_do_not_run(
    capability: tuple[int, int],
    importable: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """On other devices without a word; on a GPU that is too old, or without Triton, with a warning."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    if not importable:
        monkeypatch.setitem(sys.modules, "quamba.observers.device_sweep", None)
    assert watching.device_sweep(torch.device("cpu"), 3) is None
    assert not caplog.records
    found = watching.device_sweep(torch.device("cuda"), 3)
    assert (found is not None) == (capability >= (8, 0) and importable) == (not caplog.records)


def test_batches_fit_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never less than a token, never more than what makes products faster."""
    config = published_config("mamba-130m")
    for free, least, most in ((0, 1, 1), (1 << 20, 2, 1000), (1 << 40, 16384, 16384)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 1 << 40))
        assert least <= watching.tokens_at_once(config, torch.device("cuda")) <= most


def test_merged_batches_hold_the_same_documents() -> None:
    """In their order, padded to the longest, up to so many tokens."""
    documents = [[row + 1] * length for row, length in enumerate((3, 5, 2, 9, 1, 1, 1))]
    batches = merge_batches(batch_documents(documents, 2), 21)
    assert [tuple(batch.input_ids.shape) for batch in batches] == [(2, 5), (2, 9), (3, 1)]
    rows = [
        row[:length].tolist() for batch in batches for row, length in zip(batch.input_ids, batch.lengths, strict=True)
    ]
    assert rows == documents
    assert all(batch.input_ids.numel() <= 21 for batch in batches)
