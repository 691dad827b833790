"""What the quantizer's tests share."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quantizer.endpoints import FixedEndpoint
from quantizer.recorder import Recorder
from tests.quantizer.fake_collector import FakeCollector


@pytest.fixture
def collector() -> Iterator[FakeCollector]:
    with FakeCollector() as fake:
        yield fake


def until(condition: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    """Wait for a condition; a bound against hanging, no measurement."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"never came true: {what}"
        time.sleep(0.01)


class Recorders:
    """Recorders for a test, closed at its end, and the warnings they gave."""

    def __init__(self, log_dir: Path) -> None:
        self.log_dir = log_dir
        self.warnings: list[str] = []
        self._open: list[Recorder] = []

    def open(self, address: str, log_dir: Path | None = None) -> Recorder:
        recorder = Recorder(
            log_dir or self.log_dir,
            collector=address,
            open_local=lambda: FixedEndpoint("127.0.0.1:1"),
            warn=self.warnings.append,
        )
        self._open.append(recorder)
        return recorder

    def close(self) -> None:
        for recorder in self._open:
            recorder.close()


@pytest.fixture
def recorders(tmp_path: Path) -> Iterator[Recorders]:
    opened = Recorders(tmp_path / "logs")
    yield opened
    opened.close()
