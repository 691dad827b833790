"""How `quantizer serve` and its workers come to an end."""

import _multiprocessing
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from qlog.v1.serving.listening import Listening

from quantizer import device_runner, serve
from quantizer.device_runner import Worker
from quantizer.events import LogLine
from quantizer.serve import ServeOptions, serve_until_stopped
from quantizer.settings import Settings
from quantizer.worker import TERMINATED
from tests.quantizer.conftest import until
from tests.quantizer.fake_workers import deaf_worker, leaving_worker, worker_with_semaphore


def first_line(worker: Worker) -> str:
    """What a worker says first."""
    for message in worker.messages():
        if isinstance(message, LogLine):
            return message.text
    raise AssertionError("the worker died without a word")


def test_a_worker_that_leaves_takes_its_semaphores_with_it() -> None:
    """No named semaphore outlives it: multiprocessing complains of those when the service ends."""
    worker = Worker(worker_with_semaphore)
    name = first_line(worker)
    worker.close()
    with pytest.raises(FileNotFoundError):
        _multiprocessing.sem_unlink(name)  # type: ignore[attr-defined]  # private, and the only way to ask


def test_a_worker_ends_in_order_on_sigterm() -> None:
    """Who stops a program may tell its whole group; the parent knows what ended the worker."""
    worker = Worker(leaving_worker)
    assert first_line(worker) == "here"
    until(lambda: handles_sigterm(worker), "the worker takes the signal itself")
    worker.process.terminate()
    worker.process.join(30)
    assert worker.process.exitcode == TERMINATED
    assert worker.epitaph() == "its worker process was killed by SIGTERM"
    worker.close()


def handles_sigterm(worker: Worker) -> bool:
    """Whether its process has a handler for SIGTERM."""
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    caught = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(caught & 1 << (signal.SIGTERM - 1))


def test_a_worker_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while; closing always ends."""
    monkeypatch.setattr(device_runner, "LEAVE_GRACE_S", 0.1)
    worker = Worker(deaf_worker)
    assert first_line(worker) == "here"
    process = worker.process
    worker.close()
    with pytest.raises(ValueError, match="closed"):
        process.is_alive()


class SignalledServer:
    """A server that is told to stop while it starts, and again while it stops."""

    devices = ()
    port = 1
    metrics_url = ""
    stopped = 0

    def __init__(self, *_arguments: object, **_more: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    def stop(self) -> None:
        """The signal comes again."""
        signal.raise_signal(signal.SIGTERM)
        SignalledServer.stopped += 1


@pytest.fixture
def _handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setattr(serve, "QuantizerServer", SignalledServer)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_handlers")
def test_a_signal_that_comes_twice_at_once_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`timeout` and others tell the process and its group: that stops in order. One that comes later cuts it short."""
    options, settings = ServeOptions(Listening(), tmp_path, "cpu"), Settings(tmp_path, None)
    before = SignalledServer.stopped
    serve_until_stopped(options, settings)
    assert SignalledServer.stopped == before + 1
    monkeypatch.setattr(serve, "SAME_SIGNAL_S", -1.0)
    with pytest.raises(KeyboardInterrupt):
        serve_until_stopped(options, settings)
