"""Statistics of the user's own: measured on every report, never a danger to it."""

import logging
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from quamba.errors import StatisticError
from quamba.observers.clipping import MINMAX
from quamba.observers.observer import Observer
from quamba.observers.report import report
from quamba.observers.station import Station
from quamba.reports import LayerReport
from quamba.statistics import RESERVED, WatchedTensor, isolated, load_statistics, registered, statistic


@pytest.fixture(autouse=True)
def _own_registry() -> Iterator[None]:
    with isolated():
        yield


def reported(values: torch.Tensor) -> LayerReport:
    """The report of a tensor, float32 [documents, tokens, channels]."""
    documents, tokens, channels = values.shape
    observer = Observer([MINMAX], documents * tokens, documents, True)
    Station({observer: channels}).update(values, None)
    return report(observer, "layer_0.some:input", MINMAX)


def test_a_statistic_sees_what_the_report_says() -> None:
    """Its argument holds the sample and the facts of the report; its value stands in the report by its name."""
    seen: list[WatchedTensor] = []

    @statistic
    def spread(tensor: WatchedTensor) -> float:
        seen.append(tensor)
        return tensor.max - tensor.min

    values = torch.randn(3, 20, 8, generator=torch.Generator().manual_seed(0))
    found = reported(values)
    assert found.statistics == {"spread": pytest.approx(float(values.max() - values.min()))}
    (tensor,) = seen
    assert (tensor.name, tensor.count, tensor.min, tensor.max) == (
        found.name,
        values.numel(),
        found.before.min,
        found.before.max,
    )
    assert (tensor.mean, tensor.std, tensor.scale, tensor.bits) == (found.mean, found.std, found.scale, 8)
    assert tensor.clip == pytest.approx(127 * tensor.scale)
    # Of documents this small every element is in the sample.
    assert torch.equal(tensor.sample.sort().values, values.flatten().sort().values)


def test_without_any_there_are_none() -> None:
    """Nobody pays for what nobody asked for."""
    assert reported(torch.ones(1, 2, 3)).statistics == {}


def test_a_statistic_that_fails_is_nan_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it does: the report is whole, other statistics are measured, one line says what happened."""

    @statistic
    def broken(tensor: WatchedTensor) -> float:
        raise RuntimeError("no\nsuch thing")

    @statistic
    def worded(tensor: WatchedTensor) -> float:
        return "many"  # type: ignore[return-value]

    @statistic
    def fine(tensor: WatchedTensor) -> float:
        return True

    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            found = reported(torch.ones(1, 2, 3))
    assert math.isnan(found.statistics["broken"])
    assert math.isnan(found.statistics["worded"])
    assert found.statistics["fine"] == 1.0
    assert found.absmax == 1.0
    first, second = (record.getMessage() for record in caplog.records)
    assert first == (
        "the statistic broken failed on layer_0.some:input (RuntimeError: no such thing); NaN is recorded for it"
    )
    assert second.startswith("the statistic worded failed")


@pytest.mark.parametrize("name", [*sorted(RESERVED), "Kurtosis", "_x", "1st", "a-b", "x" * 65])
def test_names_that_are_taken_or_none_are_refused(name: str) -> None:
    """A record's own keys stay what they are."""

    def function(tensor: WatchedTensor) -> float:
        return 0.0

    function.__name__ = name
    with pytest.raises(StatisticError):
        statistic(function)
    assert registered() == ()


def test_two_functions_of_one_name_are_refused_and_a_file_replaces_its_own(tmp_path: Path) -> None:
    """A file may be run twice; another file's function of the same name is no accident to pass over."""
    source = "from quamba.statistics import statistic\n@statistic\ndef one(tensor):\n    return {}\n"
    for value in (1, 2):
        (tmp_path / "a.py").write_text(source.format(value))
        load_statistics(tmp_path / "a.py")
        assert reported(torch.ones(1, 2, 3)).statistics == {"one": value}
    (tmp_path / "b.py").write_text(source.format(3))
    with pytest.raises(StatisticError, match="two statistics are named 'one'"):
        load_statistics(tmp_path / "b.py")


@pytest.mark.parametrize(
    ("source", "message"),
    [(None, "no Python file"), ("x = 1 / 0", "ZeroDivisionError"), ("def f(:", "SyntaxError"), ("", "registers none")],
)
def test_a_file_that_cannot_be_used_is_refused(source: str | None, message: str, tmp_path: Path) -> None:
    """One line with the reason."""
    path = tmp_path / "own.py"
    if source is not None:
        path.write_text(source)
    with pytest.raises(StatisticError, match=message) as caught:
        load_statistics(path)
    assert "\n" not in str(caught.value)
