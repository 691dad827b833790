"""Comparisons that SQL asks Python for: with lists, objects, and the statistics of tensors."""

import re
from array import array
from collections.abc import Callable, Sequence
from functools import lru_cache

import orjson

from collector.filters.literals import Literal, fold, number_of, regex_of
from collector.index_values import FALSE, NAN, TRUE, Value, encode

_COMPARED: dict[str, Callable[[float, float], bool]] = {
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
    ">": lambda value, bound: value > bound,
    ">=": lambda value, bound: value >= bound,
    "=": lambda value, bound: value == bound,
    ":": lambda value, bound: value == bound,
    "!=": lambda value, bound: value != bound,
}


@lru_cache(512)
def unpacked(packed: bytes) -> Literal:
    """The literal that `collector.filters.sql` bound."""
    text, number, truth, nan, anything, glob, quoted = orjson.loads(packed)
    found = None if number is None else number_of(number)
    return Literal(
        text,
        found if found is not None or number is None else float(number),
        truth,
        nan,
        glob=glob,
        anything=anything,
        quoted=quoted,
    )


def equals(value: Value, literal: Literal) -> bool:
    """Whether an element of a list, or a statistic, equals a literal."""
    if isinstance(value, bytes):
        return (value in (TRUE, FALSE) and literal.truth is (value == TRUE)) or (value == NAN and literal.nan)
    if isinstance(value, str):
        return _glob(literal.glob).fullmatch(fold(value)) is not None if literal.glob else fold(value) == literal.text
    return value is not None and literal.number is not None and value == literal.number


def has(packed_value: Value, operator: str, packed_literal: bytes) -> bool:
    """Whether a list has an element that equals the literal, or an object, asked with `:`, a key."""
    # SQL asks this of any value, whatever stands beside it.
    if not isinstance(packed_value, bytes) or len(packed_value) < 2:
        return False
    value, literal = orjson.loads(packed_value), unpacked(packed_literal)
    if isinstance(value, dict):
        return operator == ":" and any(equals(encode(key), literal) or fold(key) == literal.text for key in value)
    return any(equals(encode(item), literal) for item in value)


def any_holds(values: Sequence[float], places: Sequence[int], operator: str, literal: Literal) -> bool:
    """Whether one of the numbers at these places compares so with a literal."""
    if literal.anything:
        return bool(places) and operator != "!="
    if literal.number is None:
        if operator == "!=":
            return bool(places)
        return literal.nan and any(values[place] != values[place] for place in places)
    compare, bound = _COMPARED[operator], literal.number
    return any(compare(values[place], bound) for place in places)


def any_text_holds(values: Sequence[object], places: Sequence[int], operator: str, literal: Literal) -> bool:
    """The same for statistics that are no numbers, or not all of them."""
    for place in places:
        value = encode(values[place])  # type: ignore[arg-type]
        if _text_holds(value, operator, literal):
            return True
    return False


def _text_holds(value: Value, operator: str, literal: Literal) -> bool:
    if literal.anything:
        return operator != "!="
    if operator in ("=", ":", "!="):
        return equals(value, literal) is (operator != "!=")
    numbers = isinstance(value, int | float) and literal.number is not None
    return numbers and _COMPARED[operator](value, literal.number)  # type: ignore[arg-type]


@lru_cache(256)
def places_of(pattern: str, names: tuple[str, ...]) -> tuple[int, ...]:
    """Where the names that a pattern matches stand."""
    matches = regex_of(pattern).fullmatch
    return tuple(place for place, name in enumerate(names) if matches(name))


def doubles(data: bytes) -> "array[float]":
    """The numbers of a layout."""
    values = array("d")
    values.frombytes(data)
    return values


@lru_cache(256)
def _glob(glob: str) -> re.Pattern[str]:
    """A GLOB pattern as `literals.glob_of` makes it."""
    out = []
    for part in re.split(r"(\[.\]|\*)", glob):
        out.append(".*" if part == "*" else re.escape(part[1] if len(part) == 3 and part[0] == "[" else part))
    return re.compile("".join(out), re.DOTALL)


__all__ = ["any_holds", "any_text_holds", "doubles", "equals", "has", "places_of", "unpacked"]
