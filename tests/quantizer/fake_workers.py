"""Workers for tests, run in spawned processes of their own: what a job does is said by its model's name."""

import multiprocessing
import os
import signal
import sys
import time
import types
from multiprocessing.connection import Connection

from quamba.reports import ProgressReport
from quantizer.errors import ExperimentCancelledError
from quantizer.events import Began, ExperimentResults, Finished, LayerMeasured, LogLine, Progressed, Status
from quantizer.outcome import Outcome
from quantizer.worker import FromWorker, JobOver, Pipe, StartJob, ToWorker, work
from tests.quantizer.builders import layer_report


def scripted_worker(connection: "Connection[FromWorker, ToWorker]") -> None:
    """Completes at once, but for jobs named otherwise."""
    pipe = Pipe(connection)
    while (start := pipe.next_job()) is not None:
        name = start.config.model.rpartition("/")[2]
        if name == "dies-at-once":
            os._exit(7)
        _begin(pipe, start)
        if name == "is-killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "segfaults":
            os.kill(os.getpid(), signal.SIGSEGV)
        try:
            if name.startswith("waits"):
                pipe.send(Progressed(ProgressReport("waiting", 0, 1, "signals")))
            while name == "waits":
                pipe.check_cancelled()
                time.sleep(0.01)
            while name == "waits-deaf":
                time.sleep(1.0)
        except ExperimentCancelledError as error:
            pipe.send(Finished(Status.CANCELLED, str(error), 0.5))
            pipe.send(JobOver(reusable=False))
            continue
        if name == "fails":
            pipe.send(Finished(Status.FAILED, "it went wrong", 0.5))
            pipe.send(JobOver(reusable=False))
            continue
        pipe.send(LogLine(f"process {os.getpid()}"))
        pipe.send(Finished(Status.COMPLETED, "", 0.5, (("load", 0.5),)))
        pipe.send(Outcome(start.config, (layer_report(),), 1, ExperimentResults(), {}, 0.5))
        pipe.send(JobOver(reusable=True))


def worker_with_semaphore(connection: "Connection[FromWorker, ToWorker]") -> None:
    """Makes a named semaphore, as tqdm does, and tells its name."""
    pipe = Pipe(connection)
    lock = multiprocessing.get_context("spawn").RLock()
    pipe.send(LogLine(lock._semlock.name))  # type: ignore[attr-defined]  # its name is nowhere else
    pipe.next_job()


def leaving_worker(connection: "Connection[FromWorker, ToWorker]") -> None:
    """Works as `quantizer.worker.work` does, without torch."""
    sys.modules["quantizer.runner"] = types.ModuleType("quantizer.runner")
    sys.modules["quantizer.runner"].run_experiment = lambda *_, **__: None  # type: ignore[attr-defined]  # never called
    connection.send(LogLine("here"))
    work(connection)


def deaf_worker(connection: "Connection[FromWorker, ToWorker]") -> None:
    """Never looks at what it is told."""
    pipe = Pipe(connection)
    pipe.send(LogLine("here"))
    time.sleep(600)


def _begin(pipe: Pipe, start: StartJob) -> None:
    began = Began(start.experiment_id, "2026-01-02 03:04:05", time.time(), start.command, start.config.record(), {})
    pipe.send(began)
    pipe.send(LayerMeasured(layer_report()))
