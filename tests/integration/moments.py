"""Moments of a running experiment at which a test does something to its collector."""

import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from subprocess import Popen

from quantizer.events import ExperimentEvent, Finished, LayerMeasured
from quantizer.recorder import Recording
from tests.processes import serving
from tests.quantizer.conftest import until


class Moments:
    """What happens when; each once, when the collector has acknowledged some events."""

    def __init__(self) -> None:
        self._actions: dict[str, Callable[[], object]] = {}
        self._tensors = 0

    def at(self, moment: str, action: Callable[[], object]) -> None:
        """Act in the "middle", after the second tensor, or at the "end", with everything told but that it is over."""
        self._actions[moment] = action

    def before(self, recording: Recording, event: ExperimentEvent) -> None:
        """An event is about to be recorded."""
        if isinstance(event, Finished):
            self._act("end", recording)
            assert "middle" not in self._actions, "the experiment has no middle"

    def after(self, recording: Recording, event: ExperimentEvent) -> None:
        """An event is recorded."""
        self._tensors += isinstance(event, LayerMeasured)
        if self._tensors == 2:
            self._act("middle", recording)

    def _act(self, moment: str, recording: Recording) -> None:
        if (action := self._actions.pop(moment, None)) is not None:
            until(lambda: _acknowledged(recording) >= 3, "the collector has acknowledged some")
            action()


def _acknowledged(recording: Recording) -> int:
    rows = [row for row in recording._recorder._spool.experiments() if row.id == recording.experiment_id]
    return rows[0].acknowledged


def free_port() -> int:
    """A port on which nobody listens, now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def collector(log_dir: Path, port: int = 0, *more: str) -> AbstractContextManager[tuple["Popen[str]", str]]:
    """A collector in a process of its own, and its address."""
    return serving("collector.entry", "serve", "--port", str(port), "--log_dir", str(log_dir), *more)
