"""The jobs of `quantizer serve`: a queue, what each job has told so far, and who waits for it. Safe for threads."""

import threading
import time
from collections.abc import Callable, Iterator

from quantizer.events import Evaluated, JobEvent, Progressed
from quantizer.job import Job, JobState, JobView, QueueFullError, RequestReusedError, StoppingError

MOST_QUEUED = 1000
MOST_FINISHED = 1000
# Of how many finished jobs the events are kept too, for those who watch late.
MOST_WITH_HISTORY = 50
MOST_EVENTS = 20_000


class Jobs:
    """All jobs of one quantizer, in the order in which they were submitted."""

    def __init__(self, serves: Callable[[str, str], bool]) -> None:
        """Args: serves: whether the device (second) may run a job that asked for a device (first)."""
        self._serves = serves
        self._changed = threading.Condition()
        self._jobs: dict[str, Job] = {}
        self._by_request: dict[str, Job] = {}
        self._submissions = 0
        self._stopping = ""

    # --- those who submit and watch ----------------------------------------------------------------------------------

    def submitted(self, request_id: str, spec: bytes) -> JobView | None:
        """The job that a request made before.

        Raises:
            RequestReusedError: it asked for something else then.
        """
        with self._changed:
            job = self._by_request.get(request_id) if request_id else None
            if job is None:
                return None
            if job.spec != spec:
                raise RequestReusedError(f"request_id {request_id} was used for another specification: make a new one")
            return self._view(job)

    def submit(self, job: Job) -> JobView:
        """Queue a job; one with the same request id, submitted at the same moment, is returned instead.

        Raises:
            StoppingError, QueueFullError, RequestReusedError: see there.
        """
        with self._changed:
            if (earlier := self.submitted(job.request_id, job.spec)) is not None:
                return earlier
            if self._stopping:
                raise StoppingError(self._stopping)
            waiting = sum(other.state is JobState.QUEUED for other in self._jobs.values())
            if waiting >= MOST_QUEUED:
                raise QueueFullError(f"{waiting} jobs are waiting already: submit it again later")
            self._submissions += 1
            job.sequence = self._submissions
            self._jobs[job.experiment_id] = job
            if job.request_id:
                self._by_request[job.request_id] = job
            self._changed.notify_all()
            return self._view(job)

    def get(self, experiment_id: str) -> JobView | None:
        """One job; None: there is none of that id (any more)."""
        with self._changed:
            job = self._jobs.get(experiment_id)
            return self._view(job) if job is not None else None

    def all(self) -> list[JobView]:
        """All jobs, in the order in which they were submitted."""
        with self._changed:
            return [self._view(job) for job in self._jobs.values()]

    def wait(self, experiment_id: str, timeout_s: float) -> JobView | None:
        """One job once it is done, or after the time as it is."""
        with self._changed:
            self._changed.wait_for(
                lambda: experiment_id not in self._jobs or self._jobs[experiment_id].state.done, timeout_s
            )
            return self.get(experiment_id)

    def watch(self, experiment_id: str, still_wanted: Callable[[], bool]) -> Iterator[JobEvent | JobView]:
        """What a job tells, from its start, and the job itself at each change of its state; ends when it is done."""
        position = 0
        shown: JobState | None = None
        while still_wanted():
            with self._changed:
                job = self._jobs.get(experiment_id)
                if job is None:
                    return
                if job.state is shown and job.forgotten + len(job.history) <= position:
                    self._changed.wait(0.5)
                position = max(position, job.forgotten)
                events = list(job.history)[position - job.forgotten :]
                position += len(events)
                view = self._view(job)
            if not view.state.done and view.state is not shown:
                yield view
            yield from events
            shown = view.state
            if view.state.done:
                yield view
                return

    def cancel(self, experiment_id: str, reason: str) -> JobView | None:
        """Ask for a job's end: one that waits is done at once, one that runs a little later."""
        with self._changed:
            job = self._jobs.get(experiment_id)
            if job is None:
                return None
            if not job.state.done:
                job.cancel_reason = job.cancel_reason or reason
                if job.state is JobState.QUEUED:
                    self._end(job, JobState.CANCELLED, reason)
            self._changed.notify_all()
            return self._view(job)

    def delete(self, experiment_id: str) -> bool:
        """Forget a job that is done; False: it is not done."""
        with self._changed:
            job = self._jobs.get(experiment_id)
            if job is not None and not job.state.done:
                return False
            if job is not None:
                self._forget(job)
            return True

    # --- those who run them ------------------------------------------------------------------------------------------

    @property
    def stopping(self) -> bool:
        """Whether no more jobs are taken."""
        with self._changed:
            return bool(self._stopping)

    def take(self, device: str) -> Job | None:
        """The next job that `device` may run, waiting for one; None: the quantizer stops."""
        with self._changed:
            while not self._stopping:
                for job in self._jobs.values():
                    if job.state is JobState.QUEUED and self._serves(job.config.device, device):
                        job.state = JobState.RUNNING
                        job.started = time.time()
                        job.device = device
                        self._changed.notify_all()
                        return job
                self._changed.wait()
            return None

    def feed(self, job: Job, event: JobEvent) -> None:
        """Something a running job told."""
        with self._changed:
            if isinstance(event, Progressed):
                job.progress = event.report
            if isinstance(event, Evaluated):
                job.results = event.results
            job.history.append(event)
            if len(job.history) > MOST_EVENTS:
                job.history.popleft()
                job.forgotten += 1
            self._changed.notify_all()

    def cancel_reason(self, job: Job) -> str:
        """Why a running job is to end; empty: it is not."""
        with self._changed:
            return job.cancel_reason

    def end(self, job: Job, state: JobState, error: str, summary: str = "") -> None:
        """A running job is done."""
        with self._changed:
            job.summary = summary
            self._end(job, state, error)
            self._changed.notify_all()

    def stop(self, reason: str) -> list[Job]:
        """Take no more jobs, cancel those that run; the ones that were still waiting, cancelled."""
        with self._changed:
            self._stopping = reason
            waiting = [job for job in self._jobs.values() if job.state is JobState.QUEUED]
            for job in list(self._jobs.values()):
                if not job.state.done:
                    job.cancel_reason = reason
            for job in waiting:
                self._end(job, JobState.CANCELLED, reason)
            self._changed.notify_all()
            return waiting

    # --- under the lock ----------------------------------------------------------------------------------------------

    def _end(self, job: Job, state: JobState, error: str) -> None:
        job.state, job.error, job.ended = state, error, time.time()
        done = [other for other in self._jobs.values() if other.state.done]
        for old in done[:-MOST_WITH_HISTORY]:
            old.forgotten += len(old.history)
            old.history.clear()
        for old in done[:-MOST_FINISHED]:
            self._forget(old)

    def _forget(self, job: Job) -> None:
        del self._jobs[job.experiment_id]
        self._by_request.pop(job.request_id, None)

    def _view(self, job: Job) -> JobView:
        before = 0
        if job.state is JobState.QUEUED:
            for other in self._jobs.values():
                if other is job:
                    break
                before += not other.state.done
        return JobView(
            job.experiment_id,
            job.spec,
            job.state,
            job.created,
            job.started,
            job.ended,
            job.device,
            job.progress,
            job.results,
            job.error,
            job.summary,
            job.sequence,
            before,
        )


__all__ = ["Jobs"]
