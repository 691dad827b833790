"""What a filter asks of an experiment, with its names looked up and its values read."""

from collections.abc import Mapping
from dataclasses import dataclass

from collector.errors import FilterError
from collector.filters.fields import Catalogue, Field
from collector.filters.literals import Literal
from collector.filters.syntax import Span, wrong

STATUSES = ("RUNNING", "COMPLETED", "FAILED", "CANCELLED", "LOST", "CORRUPT")
ORDERING = frozenset(("<", "<=", ">", ">="))
# A part of a timestamp on the left -> its place in YYYY-MM-DD HH:MM:SS, and its length.
DATE_PARTS: Mapping[str, tuple[int, int]] = {"year": (1, 4), "month": (6, 2), "day": (9, 2), "hour": (12, 2)}


@dataclass(frozen=True, slots=True)
class Words:
    """Text that stands anywhere in model, command, tags or note; with a `glob` where it has wildcards."""

    text: str
    glob: str = ""


@dataclass(frozen=True, slots=True)
class Test:
    """A field's value compared with a literal; `part`: of a timestamp, year to hour, or its date."""

    field: Field
    operator: str
    literal: Literal
    part: str = ""


@dataclass(frozen=True, slots=True)
class Layers:
    """Some tensor whose name matches `pattern` has a statistic that compares so."""

    pattern: str
    statistic: str
    operator: str
    literal: Literal


@dataclass(frozen=True, slots=True)
class Joined:
    """Conditions of which all (AND) or some (OR) hold, or not the one (NOT)."""

    by: str
    parts: "tuple[Condition, ...]"


Condition = Words | Test | Layers | Joined


@dataclass(frozen=True, slots=True)
class Reading:
    """A filter while it is read.

    Attributes:
        text: the filter.
        catalogue: the names that there are.
        now: what relative times are relative to, in seconds since 1970.
    """

    text: str
    catalogue: Catalogue
    now: float

    def wrong(self, message: str, span: Span) -> FilterError:
        """The error for a place in the filter."""
        return wrong(message, self.text, span)


__all__ = [
    "DATE_PARTS",
    "ORDERING",
    "STATUSES",
    "Condition",
    "Joined",
    "Layers",
    "Reading",
    "Test",
    "Words",
]
