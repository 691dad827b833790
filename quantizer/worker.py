"""The process that runs jobs: one a device, spawned, so that what crashes is a job and not the service.

It talks with its parent through one pipe. To it: StartJob, CancelJob, Leave. From it: the job's events, its Outcome
where it completed, and JobOver when it is ready for the next. A worker whose parent is gone ends at once.
"""

import gc
import io
import os
import queue
import signal
import sys
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TextIO

from quantizer.config import RunConfig
from quantizer.console import describe_layer
from quantizer.environment import describe
from quantizer.errors import ExperimentCancelledError, QuantizerError
from quantizer.events import ExperimentEvent, JobEvent, LayerMeasured, LogLine
from quantizer.outcome import Outcome
from quantizer.statistics import files_of, load

MOST_LINE = 4000
# How it ends on SIGTERM: as SIGTERM would end it, but in order.
TERMINATED = 128 + signal.SIGTERM


@dataclass(frozen=True, slots=True)
class StartJob:
    """Run this."""

    experiment_id: str
    command: str
    config: RunConfig


@dataclass(frozen=True, slots=True)
class CancelJob:
    """End the job that runs."""

    reason: str


@dataclass(frozen=True, slots=True)
class Leave:
    """End the process, once no job runs."""


@dataclass(frozen=True, slots=True)
class JobOver:
    """The job has ended, as its Finished said; `reusable`: the process may run another."""

    reusable: bool


ToWorker = StartJob | CancelJob | Leave
FromWorker = JobEvent | Outcome | JobOver


class Pipe:
    """The worker's end. Any thread may send; one thread receives."""

    def __init__(self, connection: "Connection[FromWorker, ToWorker]") -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._starts: queue.SimpleQueue[StartJob | None] = queue.SimpleQueue()
        self._cancelled = threading.Event()
        self._reason = ""
        threading.Thread(target=self._receive, name="qlog-parent", daemon=True).start()

    def send(self, message: FromWorker) -> None:
        """Tell the parent."""
        with self._sending:
            self._connection.send(message)

    def next_job(self) -> StartJob | None:
        """Wait for a job; None: leave."""
        return self._starts.get()

    def check_cancelled(self) -> None:
        """Raise ExperimentCancelledError if the running job is to end."""
        if self._cancelled.is_set():
            raise ExperimentCancelledError(self._reason)

    def _receive(self) -> None:
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                os._exit(1)  # Nobody is left to run a job for.
            match message:
                case StartJob():
                    self._cancelled.clear()
                    self._starts.put(message)
                case CancelJob(reason):
                    self._reason = reason
                    self._cancelled.set()
                case Leave():
                    self._starts.put(None)


class LineSender(io.TextIOBase):
    """Standard output and error of the worker: whole lines go to the parent."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._partial = ""

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, text: str) -> int:
        """Send the lines that are whole; a carriage return (a progress bar) starts a line again."""
        *lines, self._partial = (self._partial + text).split("\n")
        for line in lines:
            if shown := line.rpartition("\r")[2].rstrip()[:MOST_LINE]:
                self._pipe.send(LogLine(shown))
        self._partial = self._partial[-MOST_LINE:]
        return len(text)


def work(connection: "Connection[FromWorker, ToWorker]") -> None:
    """The worker's main function: run jobs until the parent ends it or goes away."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides.
    signal.signal(signal.SIGTERM, _leave)
    pipe = Pipe(connection)
    lines: TextIO = LineSender(pipe)  # type: ignore[assignment]  # what print and logging use of a TextIO, it has
    sys.stdout = sys.stderr = lines
    # Torch is loaded here, before a job waits for it.
    from quantizer.runner import run_experiment

    load(files_of(()))  # The service has looked whether they can be.
    while (start := pipe.next_job()) is not None:

        def emit(event: ExperimentEvent, *, verbose: bool = start.config.verbose) -> None:
            pipe.send(event)
            if verbose and isinstance(event, LayerMeasured):
                pipe.send(LogLine(describe_layer(event.report)))

        reusable = False
        try:
            outcome = run_experiment(
                start.config,
                experiment_id=start.experiment_id,
                command=start.command,
                environment=describe(start.config.device),
                emit=emit,
                check_cancelled=pipe.check_cancelled,
            )
            pipe.send(outcome)
            reusable = True
        except QuantizerError as error:
            _trace(error)
        _free_memory()
        pipe.send(JobOver(reusable))


def _leave(_number: int, _frame: object) -> None:
    sys.exit(TERMINATED)


def _trace(error: QuantizerError) -> None:
    """Where an internal error happened, into the job's log, for those who mend it."""
    if os.environ.get("QLOG_DEBUG"):
        import traceback

        traceback.print_exception(error)


def _free_memory() -> None:
    """Give back what the job held, so that the next finds it free."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


__all__ = ["TERMINATED", "CancelJob", "FromWorker", "JobOver", "Leave", "StartJob", "ToWorker", "work"]
