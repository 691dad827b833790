"""Pages of a list: which experiments match, in which order, and the token that goes on after a page.

Those that run are asked the same question as the lines, in an index of their own that lives as long as the question;
they stand as if they had numbers beyond all others, by the time of their start. A token says behind which line and
which running experiment the list goes on, by what orders them, so appends between two pages neither repeat nor skip.
"""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import orjson

from collector.errors import InvalidRequestError
from collector.filters.conditions import Condition
from collector.filters.meaning import read_filter
from collector.filters.sql import Sql, compile_filter
from collector.index import Entry
from collector.index_records import entry_from_record
from collector.index_sqlite import Found, SqliteIndex
from collector.index_values import Value
from collector.limits import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from collector.lines import Line
from collector.ordering import Order, Place, after_clause, comparison, key_expressions, order_clause, parse_order
from collector.records import Record
from collector.store import Store
from collector.views import Views

# 9999-12-31, in seconds since 1970.
_LATEST_S = 253402300800.0

# Numbers of running experiments while they are sorted: this plus the nanoseconds of their start since 1970.
_RUNNING = 2**62


@dataclass(frozen=True, slots=True)
class Query:
    """What is listed, apart from where a page begins.

    Attributes:
        filter, order_by: as in the request.
        include_running: also those without a line.
        full: with statistics.
        now: what relative times are relative to, the same on all pages, in seconds since 1970.
    """

    filter: str
    order_by: str
    include_running: bool
    full: bool
    now: float

    def fingerprint(self) -> str:
        """What ties a page token to its list."""
        asked = (self.filter, self.order_by, self.include_running, self.full)
        return hashlib.sha256(repr(asked).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page begins: behind a line and behind a running experiment; None where none was shown yet."""

    line: Place | None = None
    running: Place | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """One item of a page, and where the list goes on after it."""

    item: Entry | str
    after: Cursor


@dataclass(frozen=True, slots=True)
class Page:
    """Items, one more than asked for where there are more, and how many match on all pages."""

    items: list[Listed]
    total: int


def parse_page_size(page_size: int) -> int:
    """The size of a page.

    Raises:
        InvalidRequestError: it is negative.
    """
    if page_size < 0:
        raise InvalidRequestError("page_size", f"page_size is {page_size}, not between 0 and {MAX_PAGE_SIZE}")
    return min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def encode_token(query: Query, cursor: Cursor) -> str:
    """The token of the page that begins there."""
    places = [_place_to_json(place) for place in (cursor.line, cursor.running)]
    return base64.urlsafe_b64encode(orjson.dumps([query.fingerprint(), query.now, *places])).decode()


def decode_token(query: Query, token: str) -> tuple[Query, Cursor]:
    """Where a page begins, and the query with the time of its first page.

    Raises:
        InvalidRequestError: it is no token, or one of another list.
    """
    try:
        fingerprint, now, line, running = orjson.loads(base64.b64decode(token, altchars=b"-_", validate=True))
        cursor = Cursor(_place_from_json(line), _place_from_json(running))
        query = replace(query, now=float(now))
        if not 0 <= query.now < _LATEST_S:  # Nor nan.
            raise ValueError(now)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InvalidRequestError("page_token", "page_token is not one that this server gave") from None
    if fingerprint != query.fingerprint():
        raise InvalidRequestError("page_token", "page_token belongs to a list with other parameters: begin anew")
    return query, cursor


def _place_to_json(place: Place | None) -> object:
    if place is None:
        return None
    return [place.number, *(_value_to_json(value) for value in place.keys)]


def _value_to_json(value: Value) -> object:
    if isinstance(value, bytes):
        return {"b": value.hex()}
    if isinstance(value, float):
        return {"f": value.hex()}
    return value


def _place_from_json(value: object) -> Place | None:
    if value is None:
        return None
    if not isinstance(value, list) or type(value[0]) is not int or not 0 <= value[0] < 2**63:
        raise ValueError(value)
    return Place(tuple(_value_from_json(item) for item in value[1:]), value[0])


def _value_from_json(value: object) -> Value:
    if isinstance(value, dict):
        return bytes.fromhex(value["b"]) if "b" in value else float.fromhex(value["f"])
    if value is None or (isinstance(value, int | str) and not isinstance(value, bool)):
        return value
    raise ValueError(value)


def list_page(store: Store, views: Views, query: Query, cursor: Cursor, limit: int) -> Page:
    """A page of experiments, from the cursor on.

    Raises:
        FilterError: the filter or the order is wrong.
    """
    # Running ones first: one that ends meanwhile is then listed as a line, or on the next page, but not missed.
    running = _running_index(store, views, query) if query.include_running else None
    try:
        return page_of(store.index(), running, query, cursor, limit)
    finally:
        if running is not None:
            running.close()


def page_of(index: SqliteIndex, running: SqliteIndex | None, query: Query, cursor: Cursor, limit: int) -> Page:
    """The page of an index's lines and of what runs: see `list_page`."""
    names = index if running is None else _Names(index, running)
    condition = read_filter(query.filter, names, query.now)
    order = parse_order(query.order_by, names)
    where = lines_where(condition, index)
    _check_places(order, cursor)
    lines = _select(index, where, order, cursor.line, limit)
    total = index.matching(where)
    unended: list[Found] = []
    if running is not None:
        where = Sql("1") if condition is None else compile_filter(condition, replace(running.places(), number="NULL"))
        unended = [
            found
            for found in _select(running, where, order, cursor.running, limit)
            if index.by_id(found.entry.experiment_id) is None
        ]
        total += running.matching(where)
    rank = comparison(order)
    merged = sorted([*lines, *unended], key=lambda found: rank(Place(found.keys, found.entry.number)))  # type: ignore[arg-type,return-value]
    items = []
    for found in merged[:limit]:
        place = Place(found.keys, found.entry.number)
        if found.entry.number >= _RUNNING:
            cursor = replace(cursor, running=place)
            items.append(Listed(found.entry.experiment_id, cursor))
        else:
            cursor = replace(cursor, line=place)
            items.append(Listed(found.entry, cursor))
    return Page(items, total)


def _select(index: SqliteIndex, where: Sql, order: Order, place: Place | None, limit: int) -> list[Found]:
    keys = key_expressions(order, index.places())
    return index.select(where, keys, order_clause(order), after_clause(order, keys, place), limit)


def lines_where(condition: Condition | None, index: SqliteIndex) -> Sql:
    """The expression for lines that a list shows."""
    return Sql("1") if condition is None else compile_filter(condition, index.places())


def _check_places(order: Order, cursor: Cursor) -> None:
    for place in (cursor.line, cursor.running):
        if place is not None and len(place.keys) != len(order.keys):
            raise InvalidRequestError("page_token", "page_token is not one that this server gave")


def matching_entries(store: Store, text: str, now: float, *, first: int = 0) -> Iterator[Entry]:
    """All lines from a number on that a filter matches, in the order of their numbers.

    Raises:
        FilterError: the filter is wrong.
    """
    index = store.index()
    condition = read_filter(text, index, now)
    where = lines_where(condition, index)
    order, place = Order((), descending=False), Place((), first - 1)
    while found := _select(index, where, order, place, MAX_PAGE_SIZE):
        yield from (one.entry for one in found)
        place = Place((), found[-1].entry.number)


class _Names:
    """The names in two indexes together."""

    def __init__(self, index: SqliteIndex, running: SqliteIndex | None) -> None:
        self._indexes = [index] if running is None else [index, running]

    def paths(self) -> dict[str, list[tuple[str, ...]]]:
        """See `collector.filters.fields.Catalogue`."""
        merged: dict[str, list[tuple[str, ...]]] = {}
        for index in self._indexes:
            for joined, keys in index.paths().items():
                known = merged.setdefault(joined, [])
                known += [one for one in keys if one not in known]
        return merged

    def statistics(self) -> set[str]:
        """See `collector.filters.fields.Catalogue`."""
        return {name for index in self._indexes for name in index.statistics()}


def _running_index(store: Store, views: Views, query: Query) -> SqliteIndex | None:
    """An index of the experiments without a line; None where there are none."""
    records: dict[str, Record] = {}
    entries: list[Entry] = []
    taken: set[int] = set()
    with_stats = "anylayer" in query.filter.lower()
    for name in sorted(store.running()):
        if store.index().by_id(name) is not None:
            continue
        record = views.running_record(name, full=with_stats)
        if record is None:
            continue
        records[name] = record
        # Where a start is not known, ids stand in its place: the same on every page.
        number = _RUNNING + min(views.start_of(name) or int(name[:8], 16), 2**62 - 2**32)
        while number in taken:
            number += 1
        taken.add(number)
        entries.append(replace(entry_from_record(number, 0, 0, Line(record, verified=True)), experiment_id=name))
    if not entries:
        return None
    index = SqliteIndex(None, lambda _offset, _length: b"", lambda entry: records[entry.experiment_id])
    index.put(entries)
    return index


__all__ = [
    "Cursor",
    "Listed",
    "Page",
    "Query",
    "decode_token",
    "encode_token",
    "list_page",
    "matching_entries",
    "page_of",
    "parse_page_size",
]
