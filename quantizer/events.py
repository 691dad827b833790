"""What happens in an experiment, as frozen values: made by the runner, recorded, watched, printed.

They cross process borders as pickles, between processes of one program only; on the wire they are `qlog.v1` messages
(see `quantizer.wire`).
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from quamba.reports import LayerReport, PerplexityReport, ProgressReport, ReorderReport, TaskReport


class Status(Enum):
    """How an experiment ended."""

    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class ExperimentResults:
    """What was measured: headline figures, and everything by task and by data set."""

    accuracy: float | None = None
    perplexity: float | None = None
    tasks: tuple[TaskReport, ...] = ()
    ppl: tuple[PerplexityReport, ...] = ()
    fp16: "ExperimentResults | None" = None


@dataclass(frozen=True, slots=True)
class Began:
    """The first event. `timestamp` is local time, `start_time` seconds since 1970; `config` keeps its order."""

    experiment_id: str
    timestamp: str
    start_time: float
    command: str
    config: Mapping[str, Any]
    environment: Mapping[str, Any]

    @classmethod
    def now(
        cls, experiment_id: str, command: str, config: Mapping[str, Any], environment: Mapping[str, Any]
    ) -> "Began":
        """An experiment that begins at this moment."""
        seconds = time.time()
        timestamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
        return cls(experiment_id, timestamp, seconds, command, config, environment)


@dataclass(frozen=True, slots=True)
class LayerMeasured:
    """One watched tensor of a recorded layer."""

    report: LayerReport


@dataclass(frozen=True, slots=True)
class Reordered:
    """What grouping and reordering heads did to all layers."""

    report: ReorderReport


@dataclass(frozen=True, slots=True)
class Progressed:
    """How far a phase has come."""

    report: ProgressReport


@dataclass(frozen=True, slots=True)
class FactsKnown:
    """What became known on the way; an empty mapping says nothing new."""

    model: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    model_size_bytes: Mapping[str, int] = field(default_factory=dict)
    artifact: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evaluated:
    """All results known so far."""

    results: ExperimentResults


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event. `phases` are (name, seconds) in the order in which they began."""

    status: Status
    error: str
    duration_s: float
    phases: tuple[tuple[str, float], ...] = ()
    reorder: ReorderReport | None = None


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line that a worker printed; watched, never recorded."""

    text: str


ExperimentEvent = Began | LayerMeasured | Reordered | Progressed | FactsKnown | Evaluated | Finished
JobEvent = ExperimentEvent | LogLine


__all__ = [
    "Began",
    "Evaluated",
    "ExperimentEvent",
    "ExperimentResults",
    "FactsKnown",
    "Finished",
    "JobEvent",
    "LayerMeasured",
    "LogLine",
    "Progressed",
    "Reordered",
    "Status",
]
