"""The jobs of a quantizer, as frozen values."""

from dataclasses import dataclass, field
from typing import TypeAlias

from client.events import ExperimentEvent
from client.values import Progress, Record


@dataclass(frozen=True, slots=True)
class Job:
    """One job of a quantizer.

    Attributes:
        name: of its operation: operations/{experiment_id}.
        state: QUEUED, RUNNING, COMPLETED, FAILED, CANCELLED.
        spec: what was asked for, by option.
        error: one line; empty where nothing was wrong.
        summary: the text that ends a completed run.
        results: as the record has them, once completed.
        create_time: seconds since 1970; None where not known, as the other two.
    """

    name: str
    experiment_id: str
    state: str
    done: bool
    spec: Record = field(default_factory=dict)
    progress: Progress | None = None
    device: str = ""
    queue_position: int = 0
    error: str = ""
    summary: str = ""
    results: Record | None = None
    create_time: float | None = None
    start_time: float | None = None
    end_time: float | None = None


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a worker's log."""

    text: str


JobEvent: TypeAlias = ExperimentEvent | LogLine | Job


__all__ = ["Job", "JobEvent", "LogLine"]
