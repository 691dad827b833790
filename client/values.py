"""What the client knows, as frozen values; `client.wire` makes them of messages, the documents show them.

A record is the line of the log as JSON values, in its order of keys; numbers that are not finite are floats here and
become strings where JSON is written.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
        tags: in the order in which they were added.
        note: empty where there is none.
        archived: put away.
        amended: its line says LOST; it came back later, and this is the whole of it.
    """

    number: int | None
    experiment_id: str
    status: str
    record: Record
    progress: Progress | None = None
    tags: tuple[str, ...] = ()
    note: str = ""
    archived: bool = False
    amended: bool = False

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
    "Experiment",
    "ExperimentPage",
    "Progress",
    "Record",
    "short_id",
    "short_id_length",
]
