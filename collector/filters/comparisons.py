"""Comparisons of fields with values, and of anything with groups of values."""

from collections.abc import Callable

from collector.filters.conditions import ORDERING, STATUSES, Condition, Joined, Reading, Test
from collector.filters.fields import Field
from collector.filters.literals import Literal, literal_of, number_literal, seconds_of, text_literal
from collector.filters.syntax import FOREIGN, Call, Group, Restriction, Word
from collector.filters.times import compared_with_time, wall_time_in

Right = Word | Call | Group | None

_TIMES = frozenset(("timestamp", "instant"))
_FLAGS = frozenset(("group_heads", "apply_gptq", "archived"))
_NUMBERS = frozenset(("number", "duration_s", "w_bits", "a_bits", "percentile_alpha", "accuracy", "perplexity"))


def each(right: Right, test: Callable[[Word | Call], Condition], reading: Reading) -> Condition:
    """A comparison with one value, or with each of a group of them.

    Raises:
        FilterError: something else stands in the group.
    """
    if isinstance(right, Group):
        parts = []
        for part in right.parts:
            if isinstance(part, Restriction) and part.operator:
                raise reading.wrong("only values can stand here, joined by OR or AND", part.left.span)
            parts.append(each(part.left if isinstance(part, Restriction) else part, test, reading))
        return Joined(right.joined_by, tuple(parts)) if len(parts) > 1 or right.joined_by == "NOT" else parts[0]
    if right is None:
        raise AssertionError("the grammar has an operand after every operator")
    return test(right)


def compared(field: Field, operator: str, value: Word | Call, reading: Reading) -> Condition:
    """A field compared with one value.

    Raises:
        FilterError: it cannot be compared with that.
    """
    if isinstance(value, Word):
        check_foreign(value, reading)
    if field.column in _TIMES and not (isinstance(value, Word) and _is_pattern(value)):
        return compared_with_time(field, operator, value, reading)
    if isinstance(value, Call):
        return Test(field, operator, text_literal(wall_time_in(value, reading)))
    literal = literal_of(value.text, quoted=value.quoted)
    known = literal.null or literal.anything or literal.glob or literal.text.upper() in STATUSES
    if field.column == "status" and not known:
        raise reading.wrong(f"no status {value.text!r}: one of {', '.join(STATUSES)}", value.span)
    if field.name.endswith("_s") and literal.number is None and (seconds := seconds_of(value.text)) is not None:
        return Test(field, operator, number_literal(seconds))
    _check_type(field, operator, literal, value, reading)
    return Test(field, operator, literal)


def _is_pattern(value: Word) -> bool:
    literal = literal_of(value.text, quoted=value.quoted)
    return literal.null or literal.anything or bool(literal.glob)


def check_foreign(word: Word, reading: Reading) -> None:
    """Raise FilterError for an operator of another language."""
    if not word.quoted and (advice := FOREIGN.get(word.text)) is not None:
        raise reading.wrong(f"{word.text} is no operator: {advice}", word.span)


def _check_type(field: Field, operator: str, literal: Literal, value: Word, reading: Reading) -> None:
    if operator in ORDERING and (literal.null or literal.anything or literal.truth is not None or literal.glob):
        raise reading.wrong(f"{operator} needs a number, a text or a time, not {value.text}", value.span)
    special = literal.null or literal.anything
    if field.column in _FLAGS and not special and (literal.truth is None or operator in ORDERING):
        raise reading.wrong(f"{field.name} is true or false, not {value.text!r}", value.span)
    # Other loggers' lines may have texts there, but none that orders them.
    if field.column in _NUMBERS and operator in ORDERING and literal.number is None:
        raise reading.wrong(f"{field.name} is a number, {value.text!r} is none", value.span)


__all__ = ["Right", "check_foreign", "compared", "each"]
