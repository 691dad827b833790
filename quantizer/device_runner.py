"""One device's share of the queue: takes a job, has a worker process run it, records what the worker tells."""

import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from quantizer.config import RunConfig
from quantizer.events import Began, Finished, JobEvent, LogLine, Status
from quantizer.job import Job, JobState
from quantizer.jobs import Jobs
from quantizer.outcome import Outcome
from quantizer.recorder import Recorder, Recording
from quantizer.roots import OutsideError
from quantizer.summary import summary
from quantizer.worker import TERMINATED, CancelJob, FromWorker, JobOver, Leave, StartJob, ToWorker, work

CANCEL_GRACE_S = 10.0
LEAVE_GRACE_S = 5.0
DELIVERY_WAIT_S = 2.0
STOP_SEEN_S = 0.5
_POLL_S = 0.1
_STATES = {
    Status.COMPLETED: JobState.COMPLETED,
    Status.FAILED: JobState.FAILED,
    Status.CANCELLED: JobState.CANCELLED,
}

WorkerMain = Callable[["Connection[FromWorker, ToWorker]"], None]


class Worker:
    """A worker process as its parent sees it."""

    def __init__(self, main: WorkerMain) -> None:
        context = multiprocessing.get_context("spawn")
        connection, remote = context.Pipe()
        self.connection: Connection[ToWorker, FromWorker] = connection
        self.process: SpawnProcess = context.Process(target=main, args=(remote,), daemon=True, name="quantizer-worker")
        self.process.start()
        remote.close()

    def messages(self) -> Iterator[FromWorker | None]:
        """What it tells, None when it is silent for a moment; ends when it is dead and everything is read."""
        while True:
            if not wait([self.connection, self.process.sentinel], _POLL_S):
                yield None
                continue
            try:
                # Its last words may still be in the pipe.
                if self.connection.poll():
                    yield self.connection.recv()
                    continue
            except (EOFError, OSError):
                pass
            self.process.join(_POLL_S)
            if not self.process.is_alive():
                return
            yield None

    def send(self, message: ToWorker) -> None:
        """Tell it something; one that is dead does not hear it."""
        try:
            self.connection.send(message)
        except OSError:
            return  # `messages` ends, and says so.

    def kill(self) -> None:
        """End it without asking."""
        self.process.kill()

    def close(self) -> None:
        """End it, and free what it took here.

        It is asked to leave: named semaphores that its libraries have made (tqdm's lock is one) are removed by the
        process itself, on its way out, and by nobody where it is killed.
        """
        if self.process.is_alive():
            self.send(Leave())
            self.process.join(LEAVE_GRACE_S)
            self.process.kill()
        self.process.join()
        self.connection.close()
        self.process.close()

    def epitaph(self) -> str:
        """How it died."""
        code = -signal.SIGTERM if self.process.exitcode == TERMINATED else self.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            hint = " (by hand, or because the machine ran out of memory)" if name == "SIGKILL" else ""
            return f"its worker process was killed by {name}{hint}"
        return f"its worker process ended with exit code {code}"


@dataclass
class _JobRun:
    """What is known of the job that runs."""

    job: Job
    recording: Recording
    began: float | None = None
    finished: Finished | None = None
    outcome: Outcome | None = None
    cancel_told: float | None = None
    killed: bool = False


class DeviceRunner:
    """A thread for one device. Its worker process stays for the next job as long as jobs complete."""

    def __init__(
        self,
        device: str,
        jobs: Jobs,
        recorder: Recorder,
        log: Callable[[str], None],
        worker_main: WorkerMain = work,
        check: Callable[[RunConfig], None] = lambda _config: None,
    ) -> None:
        """Args: check: raises OutsideError where a job's paths may not be used any more."""
        self.device = device
        self._jobs = jobs
        self._recorder = recorder
        self._log = log
        self._worker_main = worker_main
        self._check = check
        self._worker: Worker | None = None
        self._thread = threading.Thread(target=self._run, name=f"qlog-{device}", daemon=True)

    def start(self) -> None:
        """Begin to take jobs."""
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for the end, which `Jobs.stop` brings about."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        self._prepare_worker()
        while (job := self._jobs.take(self.device)) is not None:
            run = _JobRun(job, self._recorder.recording(job.experiment_id))
            try:
                self._check(job.config)
                reusable = self._run_job(run, self._living_worker())
            except OutsideError as error:
                reusable = True
                self._tell_end(run, Status.FAILED, str(error))
            except Exception as error:  # noqa: BLE001 - one job's trouble ends that job alone
                reusable = False
                self._tell_end(run, Status.FAILED, f"internal error: {type(error).__name__}: {error}")
            if not reusable:
                self._drop_worker()
            self._end(run)
            if not self._jobs.stopping:
                self._prepare_worker()
        self._drop_worker()

    def _prepare_worker(self) -> None:
        """Have a worker load its libraries before a job waits for it."""
        try:
            self._living_worker()
        except OSError as error:  # The next job that needs one fails with it, or finds that it has passed.
            self._log(f"no worker process can be started for {self.device}: {error}")

    def _living_worker(self) -> Worker:
        if self._worker is not None and not self._worker.process.is_alive():
            self._drop_worker()
        if self._worker is None:
            self._worker = Worker(self._worker_main)
        return self._worker

    def _drop_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()

    def _run_job(self, run: _JobRun, worker: Worker) -> bool:
        """Whether the worker may run another job."""
        job = run.job
        self._log(f"job {job.experiment_id}: {job.config.model} begins on {self.device}")
        config = replace(job.config, device=self.device)
        worker.send(StartJob(job.experiment_id, job.command, config))
        for message in worker.messages():
            match message:
                case None:
                    pass
                case JobOver(reusable):
                    return reusable
                case Outcome():
                    run.outcome = message
                case _:
                    self._tell(run, message)
            self._see_to_cancelling(run, worker)
        self._bury(run, worker)
        return False

    def _tell(self, run: _JobRun, event: JobEvent) -> None:
        if isinstance(event, Finished):
            if run.finished is not None:
                return
            run.finished = event
        if isinstance(event, Began):
            run.began = time.monotonic()
        if not isinstance(event, LogLine):
            run.recording.record(event)
        self._jobs.feed(run.job, event)

    def _see_to_cancelling(self, run: _JobRun, worker: Worker) -> None:
        reason = self._jobs.cancel_reason(run.job)
        if not reason or run.finished is not None:
            return
        now = time.monotonic()
        if run.cancel_told is None:
            run.cancel_told = now
            worker.send(CancelJob(reason))
        elif now > run.cancel_told + CANCEL_GRACE_S and not run.killed:
            run.killed = True
            worker.kill()

    def _bury(self, run: _JobRun, worker: Worker) -> None:
        """The worker died: the job's record is ended here."""
        if worker.process.exitcode in (TERMINATED, -signal.SIGTERM):
            # Whoever stops the service may send it to all its processes at once: then this is no crash.
            time.sleep(STOP_SEEN_S)
        if reason := self._jobs.cancel_reason(run.job):
            self._tell_end(run, Status.CANCELLED, reason)
        else:
            self._tell_end(run, Status.FAILED, worker.epitaph())

    def _tell_end(self, run: _JobRun, status: Status, error: str) -> None:
        if run.began is None:
            self._tell(run, _began_here(run.job, self.device))
        duration_s = 0.0 if run.began is None else time.monotonic() - run.began
        self._tell(run, Finished(status, error, round(duration_s, 3)))

    def _end(self, run: _JobRun) -> None:
        job, finished = run.job, run.finished
        if finished is None:
            finished = Finished(Status.FAILED, "its worker ended the job without a word", 0.0)
            self._tell_end(run, finished.status, finished.error)
        text = ""
        if run.outcome is not None and finished.status is Status.COMPLETED:
            delivery = self._recorder.wait_delivered(job.experiment_id, DELIVERY_WAIT_S)
            text = summary(run.outcome, delivery)
        self._jobs.end(job, _STATES[finished.status], finished.error, text)
        trouble = f": {finished.error}" if finished.error else ""
        self._log(f"job {job.experiment_id}: {finished.status.value} after {finished.duration_s:.1f} s{trouble}")


def _began_here(job: Job, device: str) -> Began:
    """The first event of a job whose worker died before it could tell it."""
    return Began.now(job.experiment_id, job.command, replace(job.config, device=device).record(), {})


__all__ = ["DeviceRunner", "Worker"]
