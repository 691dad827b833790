"""One small experiment, run with things in its way, and what is asked of its record afterwards."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from quantizer.entry import run_command
from quantizer.events import ExperimentEvent
from quantizer.recorder import Recording
from tests.integration.moments import Moments
from tests.quantizer.runs import numbers, records, run, write_inputs


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a model and a text."""
    directory = tmp_path_factory.mktemp("root")
    write_inputs(directory)
    return directory


@pytest.fixture(scope="session")
def words(root: Path) -> list[str]:
    """The command line of the experiment, without where it is recorded."""
    return write_inputs(root)[1]


@pytest.fixture(scope="session")
def undisturbed(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The record of the experiment with nothing in its way."""
    log_dir = tmp_path_factory.mktemp("undisturbed")
    assert run(words, log_dir) == 0
    (record,) = records(log_dir)
    return record


@dataclass(frozen=True)
class Case:
    """The experiment of a test; its spool is `here`, the collector's store is `there`."""

    words: list[str]
    undisturbed: dict[str, Any]
    here: Path
    there: Path
    capture: pytest.CaptureFixture[str]

    def run(self, address: str, *more: str) -> tuple[str, str]:
        """Run it in this process, recorded with a collector; what it told, and what it warned of."""
        assert run(self.words, self.here, "--collector", address, *more) == 0
        out, err = self.capture.readouterr()
        assert f"{self.undisturbed['results']['perplexity']:.4f}" in out
        return out, err

    def run_away(self, address: str, *more: str) -> str:
        """The same where the collector is away: one warning, which is returned, and no record yet."""
        out, err = self.run(address, *more)
        assert err.count("warning") == 1, err
        assert "not yet" in out
        return err

    def flush(self, address: str | None = None, *more: str) -> tuple[int, str, str]:
        """Send what waits; the exit code and what was told."""
        where = [] if address is None else ["--collector", address]
        code = run_command(["spool", "flush", "--log_dir", str(self.here), *where, *more])
        return code, *self.capture.readouterr()

    def check(self) -> dict[str, Any]:
        """That the one record which the collector has is what it would be with nothing in the way."""
        (record,) = records(self.there)
        assert numbers(record) == numbers(self.undisturbed)
        assert record["dropped"] == {}
        return record


@pytest.fixture
def case(words: list[str], undisturbed: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Case:
    return Case(words, undisturbed, tmp_path / "here", tmp_path / "there", capsys)


@pytest.fixture
def moments(monkeypatch: pytest.MonkeyPatch) -> Moments:
    """Where a test can interfere with experiments of this process."""
    interfering, record = Moments(), Recording.record

    def interfere(recording: Recording, event: ExperimentEvent) -> None:
        interfering.before(recording, event)
        record(recording, event)
        interfering.after(recording, event)

    monkeypatch.setattr(Recording, "record", interfere)
    return interfering
