"""What a filter says, before its names are looked up."""

from dataclasses import dataclass

from collector.errors import FilterError


@dataclass(frozen=True, slots=True)
class Span:
    """Where in the filter something stands."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Word:
    """A bare word, a quoted text, or segments of both joined by dots.

    Attributes:
        text: without quotes, escapes resolved; a `*` that was escaped is `\\*`.
        quoted: it was one quoted text.
    """

    text: str
    quoted: bool
    span: Span


@dataclass(frozen=True, slots=True)
class Call:
    """A function with its arguments."""

    name: str
    arguments: "tuple[Word | Call, ...]"
    span: Span


@dataclass(frozen=True, slots=True)
class Restriction:
    """`left operator right`, or `left` alone; `right` may be a group of values."""

    left: Word | Call
    operator: str = ""
    right: "Word | Call | Group | None" = None


@dataclass(frozen=True, slots=True)
class Group:
    """Conditions of which all (`joined_by` AND), some (OR) or not the only one (NOT) have to hold."""

    joined_by: str
    parts: "tuple[Group | Restriction, ...]"


Node = Group | Restriction

# What people write who come from other languages, and what to write.
FOREIGN = {
    "==": "one = compares",
    "&&": "write AND",
    "||": "write OR",
    "~": "write = with * in the value",
    "=~": "write = with * in the value",
}


def wrong(message: str, text: str, span: Span) -> FilterError:
    """The error for a place in a filter."""
    return FilterError("filter", message, text, span.start, span.end)


__all__ = ["FOREIGN", "Call", "Group", "Node", "Restriction", "Span", "Word", "wrong"]
