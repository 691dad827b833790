"""The order of a list: the names in order_by, as SQL, and as a comparison of what SQL gave.

Each key is ascending or descending, with what is absent last in both; ties stand by number. Numbers come before texts.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from collector import limits
from collector.errors import FilterError
from collector.filters.fields import Catalogue, Field, resolve
from collector.filters.literals import fold
from collector.filters.sql import Places, Sql, sort_value
from collector.filters.syntax import Span
from collector.index_values import Value

_DIRECTIONS = {"": False, "asc": False, "desc": True}


@dataclass(frozen=True, slots=True)
class Order:
    """An order.

    Attributes:
        keys: fields, each with whether it is descending.
        descending: of the numbers, which decide between equals.
    """

    keys: tuple[tuple[Field, bool], ...]
    descending: bool


@dataclass(frozen=True, slots=True)
class Place:
    """A place in an order: right after what has these keys and this number."""

    keys: tuple[Value, ...]
    number: int


def parse_order(text: str, catalogue: Catalogue) -> Order:
    """The order that a text such as "results.accuracy desc, number" names.

    Raises:
        FilterError: it names none.
    """
    keys: list[tuple[Field, bool]] = []
    start = 0
    for part in text.split(",") if text.strip() else ():
        end = start + len(part)
        words = part.split()
        span = Span(start + len(part) - len(part.lstrip()), start + len(part.rstrip()))
        start = end + 1
        direction = words[1].lower() if len(words) == 2 else ""
        if not 1 <= len(words) <= 2 or direction not in _DIRECTIONS:
            raise _wrong("an order is a field, or a field and asc or desc", text, span)
        try:
            field = resolve(words[0], catalogue, text, span)
        except FilterError as error:
            raise _wrong(f"cannot order by {words[0]!r}: {error}", text, span) from None
        if field.column == "number":
            return Order(tuple(keys), descending=_DIRECTIONS[direction])
        if len(keys) >= limits.MAX_ORDER_KEYS:
            raise _wrong(f"more than {limits.MAX_ORDER_KEYS} fields to order by", text, span)
        keys.append((field, _DIRECTIONS[direction]))
    return Order(tuple(keys), descending=False)


def _wrong(message: str, text: str, span: Span) -> FilterError:
    return FilterError("order_by", message, text, span.start, span.end)


def key_expressions(order: Order, places: Places) -> list[Sql]:
    """The expressions whose values order lines."""
    return [sort_value(field, places) for field, _ in order.keys]


def order_clause(order: Order) -> str:
    """What stands behind ORDER BY, where the keys are k0, k1, ..."""
    parts = [f"k{n} IS NULL, k{n}{' DESC' if down else ''}" for n, (_, down) in enumerate(order.keys)]
    return ", ".join([*parts, f"l.number{' DESC' if order.descending else ''}"])


def after_clause(order: Order, keys: Sequence[Sql], place: Place | None) -> Sql:
    """True of what comes after a place; of everything, where there is none."""
    if place is None:
        return Sql("1")
    equal: list[Sql] = []
    choices: list[Sql] = []
    for key, (_, down), value in zip(keys, order.keys, place.keys, strict=True):
        if value is not None:
            later = f"({key.text}) {'<' if down else '>'} ? OR ({key.text}) IS NULL"
            choices.append(_both(equal, Sql(later, (*key.values, value, *key.values))))
        equal.append(Sql(f"({key.text}) IS ?", (*key.values, value)))
    choices.append(_both(equal, Sql(f"l.number {'<' if order.descending else '>'} ?", (place.number,))))
    return Sql(
        " OR ".join(f"({choice.text})" for choice in choices),
        tuple(value for choice in choices for value in choice.values),
    )


def _both(equal: Sequence[Sql], last: Sql) -> Sql:
    parts = [*equal, last]
    return Sql(
        " AND ".join(f"({part.text})" for part in parts), tuple(value for part in parts for value in part.values)
    )


def comparison(order: Order) -> Callable[[Place], object]:
    """A sort key that puts places in the order in which SQL has them."""

    def compare(one: Place, other: Place) -> int:
        for (_, down), left, right in zip(order.keys, one.keys, other.keys, strict=True):
            if left is None or right is None:
                result = (left is None) - (right is None)
            else:
                a, b = _rank(left), _rank(right)
                result = (a > b) - (a < b)
                result = -result if down else result
            if result:
                return result
        result = (one.number > other.number) - (one.number < other.number)
        return -result if order.descending else result

    return functools.cmp_to_key(compare)


def _rank(value: Value) -> tuple[int, Any]:
    if isinstance(value, bytes):
        return 2, value
    if isinstance(value, str):
        return 1, fold(value).encode()
    return 0, value


__all__ = ["Order", "Place", "after_clause", "comparison", "key_expressions", "order_clause", "parse_order"]
