"""Pages of a list: which experiments stand on one, and the token that goes on after it.

The order is that of the lines (or the reverse), then, where asked for, the experiments that run, in the order of their
ids. A token says what comes next by number, so appends between two pages neither repeat nor skip a line.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from collector.errors import InvalidRequestError
from collector.index import Entry
from collector.limits import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from collector.store import Store

_ORDERS = {"": False, "number": False, "number asc": False, "number desc": True}


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What is listed, apart from where a page begins.

    Attributes:
        descending: the last line first.
        include_running: also those without a line, after all others.
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
        running: the id after which the running ones go on, once all lines were shown; None before that.
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


def first_cursor(store: Store, query: ListQuery) -> Cursor:
    """Where the first page begins."""
    return Cursor(store.index().count() - 1 if query.descending else 0)


def list_items(store: Store, query: ListQuery, cursor: Cursor, limit: int) -> Sequence[Listed]:
    """Up to `limit` items from the cursor on."""
    # Running ones first: one that ends meanwhile is then listed as a line, or on the next page, but not missed.
    running = sorted(store.running()) if query.include_running else []
    index = store.index()
    step = -1 if query.descending else 1
    listed: list[Listed] = []
    if not query.descending or cursor.running is None:
        entries = index.page(cursor.number, limit, descending=query.descending)
        listed = [Listed(entry, Cursor(entry.number + step, cursor.running)) for entry in entries]
    number = listed[-1].after.number if listed else cursor.number
    for experiment_id in running:
        if len(listed) >= limit:
            break
        if experiment_id > (cursor.running or "") and index.by_id(experiment_id) is None:
            listed.append(Listed(experiment_id, Cursor(number, experiment_id)))
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
