"""What the client knows, as frozen values; `client.wire` makes them of messages, the documents show them.

A record is the line of the log as JSON values, in its order of keys; numbers that are not finite are floats here and
become strings where JSON is written.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeAlias

Record: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a phase has come. `total` is 0 where it is not known."""

    phase: str
    done: int
    total: int
    unit: str


@dataclass(frozen=True, slots=True)
class Experiment:
    """One experiment.

    Attributes:
        number: of its line in the log; None while it runs.
        experiment_id: empty for lines of the earlier logger.
        status: RUNNING, COMPLETED, FAILED, CANCELLED, LOST; empty where the line has none, CORRUPT where it is damaged.
        record: the line, without per-tensor statistics in the BASIC view.
        progress: its last, while it runs.
    """

    number: int | None
    experiment_id: str
    status: str
    record: Record
    progress: Progress | None = None

    @property
    def ended(self) -> bool:
        """It has its line in the log."""
        return self.status != RUNNING

    @property
    def name(self) -> str:
        """What one can call it by: "#3", or the short id while it has no number."""
        return f"#{self.number}" if self.number is not None else short_id(self.experiment_id)


@dataclass(frozen=True, slots=True)
class ExperimentPage:
    """One page of a list; `next_token` is empty on the last. `total` counts those on all pages."""

    experiments: tuple[Experiment, ...]
    next_token: str
    total: int


@dataclass(frozen=True, slots=True)
class Cell:
    """What one experiment has under a key; `present` tells a null from a key that is not there."""

    present: bool
    value: Any = None


@dataclass(frozen=True, slots=True)
class ConfigRow:
    """One key of the configuration, one cell for each experiment."""

    key: str
    cells: tuple[Cell, ...]
    differs: bool


@dataclass(frozen=True, slots=True)
class MetricCell:
    """One experiment's value of a metric, and how it differs from the first experiment's.

    `difference` and `difference_stderr` are in points (hundredths) for fractions, else in the metric's own unit.
    """

    value: float | None
    stderr: float | None = None
    difference: float | None = None
    difference_stderr: float | None = None
    exceeds_stderr: bool | None = None


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric; `is_fraction`: of 1, compared in points."""

    name: str
    is_fraction: bool
    cells: tuple[MetricCell, ...]
    differs: bool


@dataclass(frozen=True, slots=True)
class TensorRow:
    """One tensor's statistics as the record has them, None where an experiment has no such tensor."""

    name: str
    cells: tuple[Record | None, ...]
    differs: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two or more experiments side by side; the first is what the others are compared with."""

    experiments: tuple[Experiment, ...]
    config: tuple[ConfigRow, ...]
    results: tuple[MetricRow, ...]
    tensors: tuple[TensorRow, ...]


@dataclass(frozen=True, slots=True)
class ExperimentEvent:
    """What happened in an experiment: begin, layer_stats, progress, facts, evaluation_result, reorder_summary, finish.

    `data` is spelt as the record spells it. `offset` is the event's position; None where the stream tells none.
    """

    experiment_id: str
    offset: int | None
    kind: str
    data: Record


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """Events of one experiment as they arrived together; `ended` holds the experiment once it has ended."""

    experiment_id: str
    events: tuple[ExperimentEvent, ...]
    resume_token: str
    ended: Experiment | None = None


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

RUNNING = "RUNNING"
COMPLETED = "COMPLETED"
CORRUPT = "CORRUPT"

# Characters of an id that are shown where there is little room: of a UUIDv7, its time to the millisecond.
SHORT_ID_LENGTH = 13


def short_id(experiment_id: str) -> str:
    """The beginning of an id."""
    return experiment_id[:SHORT_ID_LENGTH]


def short_id_length(experiment_ids: Iterable[str]) -> int:
    """How many characters tell these ids apart, at least those of a short id."""
    ids = sorted(set(experiment_ids))
    shared = (_common_length(one, other) for one, other in pairwise(ids))
    return max(SHORT_ID_LENGTH, 1 + max(shared, default=0))


def _common_length(one: str, other: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


__all__ = [
    "COMPLETED",
    "CORRUPT",
    "RUNNING",
    "Cell",
    "Comparison",
    "ConfigRow",
    "Experiment",
    "ExperimentEvent",
    "ExperimentPage",
    "Job",
    "JobEvent",
    "LogLine",
    "MetricCell",
    "MetricRow",
    "Progress",
    "Record",
    "TensorRow",
    "WatchBatch",
    "short_id",
    "short_id_length",
]
