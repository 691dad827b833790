"""One job of `quantizer serve`: what was submitted, where it stands, what it has told."""

import time
from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from quamba.reports import ProgressReport
from quantizer.config import RunConfig
from quantizer.errors import QuantizerError
from quantizer.events import ExperimentResults, JobEvent


class JobState(Enum):
    """Where a job stands."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def done(self) -> bool:
        """Whether it is one of the last three."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class QueueFullError(QuantizerError):
    """More jobs wait than are taken."""


class StoppingError(QuantizerError):
    """The quantizer takes no more jobs."""


class RequestReusedError(QuantizerError):
    """A request id came with another specification before."""


@dataclass
class Job:
    """One experiment that somebody submitted. Only `Jobs` changes it, under its lock.

    Attributes:
        spec: the serialized specification, as it was submitted.
        history: what was told; `forgotten` events before it are no longer kept.
        sequence: the how-manieth submission it was.
    """

    experiment_id: str
    config: RunConfig
    spec: bytes
    command: str
    request_id: str
    state: JobState = JobState.QUEUED
    created: float = field(default_factory=time.time)
    started: float | None = None
    ended: float | None = None
    device: str = ""
    progress: ProgressReport | None = None
    results: ExperimentResults = field(default_factory=ExperimentResults)
    error: str = ""
    summary: str = ""
    cancel_reason: str = ""
    history: deque[JobEvent] = field(default_factory=deque)
    forgotten: int = 0
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class JobView:
    """A job at one moment. `queue_position`: jobs before it; `sequence`: the how-manieth submission it was."""

    experiment_id: str
    spec: bytes
    state: JobState
    created: float
    started: float | None
    ended: float | None
    device: str
    progress: ProgressReport | None
    results: ExperimentResults
    error: str
    summary: str
    sequence: int
    queue_position: int


__all__ = ["Job", "JobState", "JobView", "QueueFullError", "RequestReusedError", "StoppingError"]
