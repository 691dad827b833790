"""Pages of a list: which experiments stand on one, and the token that goes on after it.

The order is that of the lines, then, where asked for, the experiments that run, in the order of their start; or all of
it reversed. A token says what comes next by number, so appends between two pages neither repeat nor skip a line.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from collector.errors import InvalidRequestError
from collector.index import Entry, Index
from collector.limits import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from collector.store import Store

# Of the line that a list from the last one begins with, whatever its number is by then.
_LAST = 2**62 - 1
_ORDERS = {"": False, "number": False, "number asc": False, "number desc": True}


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What is listed, apart from where a page begins.

    Attributes:
        descending: the newest first.
        include_running: also those without a line; they are newer than all others.
        full: with statistics.
    """

    descending: bool
    include_running: bool
    full: bool

    def fingerprint(self) -> str:
        """What ties a page token to its list."""
        return hashlib.sha256(repr((self.descending, self.include_running, self.full)).encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page begins.

    Attributes:
        number: of the next line; -1 downwards, or the count of lines upwards, where there is none left.
        running: the place after which the running ones go on, once one was shown; None before that.
    """

    number: int
    running: str | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """One item of a page, and where the list goes on after it."""

    item: Entry | str
    after: Cursor


def parse_order(order_by: str) -> bool:
    """Whether the order is descending.

    Raises:
        InvalidRequestError: there is no such order.
    """
    order = " ".join(order_by.lower().split())
    if order not in _ORDERS:
        raise InvalidRequestError("order_by", f"cannot order by {order_by!r}: 'number' and 'number desc' are supported")
    return _ORDERS[order]


def parse_page_size(page_size: int) -> int:
    """The size of a page.

    Raises:
        InvalidRequestError: it is negative.
    """
    if page_size < 0:
        raise InvalidRequestError("page_size", f"page_size is {page_size}, not between 0 and {MAX_PAGE_SIZE}")
    return min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def encode_token(query: ListQuery, cursor: Cursor) -> str:
    """The token of the page that begins there."""
    text = json.dumps([query.fingerprint(), cursor.number, cursor.running])
    return base64.urlsafe_b64encode(text.encode()).decode()


def decode_token(query: ListQuery, token: str) -> Cursor:
    """Where a page begins.

    Raises:
        InvalidRequestError: it is no token, or one of another list.
    """
    try:
        fingerprint, number, running = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
    except (ValueError, TypeError, binascii.Error, RecursionError):
        fingerprint, number, running = None, None, None
    valid = isinstance(number, int) and -1 <= number < 2**62 and (running is None or isinstance(running, str))
    if not valid or not isinstance(fingerprint, str):
        raise InvalidRequestError("page_token", "page_token is not one that this server gave")
    if fingerprint != query.fingerprint():
        raise InvalidRequestError("page_token", "page_token belongs to a list with other parameters: begin anew")
    return Cursor(number, running)


def first_cursor(query: ListQuery) -> Cursor:
    """Where the first page begins."""
    return Cursor(_LAST if query.descending else 0)


def list_items(
    store: Store, query: ListQuery, cursor: Cursor, limit: int, start_of: Callable[[str], int]
) -> list[Listed]:
    """Up to `limit` items from the cursor on.

    Args:
        start_of: when a running experiment began, in nanoseconds since 1970.
    """
    # Running ones first: one that ends meanwhile is then listed as a line, or on the next page, but not missed.
    running = {f"{start_of(name):020d} {name}": name for name in store.running()} if query.include_running else {}
    index = store.index()
    unended = {place: name for place, name in sorted(running.items()) if index.by_id(name) is None}
    if query.descending:
        return _newest_first(index, unended, cursor, limit)
    entries = index.page(cursor.number, limit, descending=False)
    listed = [Listed(entry, Cursor(entry.number + 1, cursor.running)) for entry in entries]
    number = listed[-1].after.number if listed else cursor.number
    later = (place for place in unended if place > (cursor.running or ""))
    listed += [Listed(unended[place], Cursor(number, place)) for place in later]
    return listed[:limit]


def _newest_first(index: Index, unended: dict[str, str], cursor: Cursor, limit: int) -> list[Listed]:
    listed: list[Listed] = []
    if cursor.number == _LAST:
        earlier = (place for place in reversed(unended) if cursor.running is None or place < cursor.running)
        listed = [Listed(unended[place], Cursor(_LAST, place)) for place in earlier][:limit]
    if len(listed) < limit:
        start = min(cursor.number, index.count() - 1)
        entries = index.page(start, limit - len(listed), descending=True)
        listed += [Listed(entry, Cursor(entry.number - 1)) for entry in entries]
    return listed


__all__ = [
    "Cursor",
    "ListQuery",
    "Listed",
    "decode_token",
    "encode_token",
    "first_cursor",
    "list_items",
    "parse_order",
    "parse_page_size",
]
