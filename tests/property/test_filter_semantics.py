"""What a filter matches and how a list is ordered, against plain Python: for any records and any filters."""

import functools
import math

import orjson
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from collector.annotations import Annotation
from collector.index_names import Names
from collector.index_rows import Rows
from collector.index_sqlite import SqliteIndex
from collector.lines import decode_line, encode_line
from collector.listing import Cursor, Query, decode_token, encode_token, page_of
from tests.property.filter_model import ANY_FIELDS, FILTERS, NUMBER_FIELDS, Experiment, experiments, fold, is_number

_NOW = 1_795_000_000.0


def _indexed(found, written):
    """The experiments with their numbers, and their index: lines of this program, or of others with spaces in them."""
    log, places = b"", []
    for one, ours in zip(found, written, strict=True):
        line = b'{"torn": \n' if not one.record else encode_line(one.record)
        if one.record and not ours:
            line = orjson.dumps(one.record, option=orjson.OPT_INDENT_2).replace(b"\n", b" ") + b"\n"
        places.append((len(log), len(line)))
        log += line

    def read(offset, length):
        return log[offset : offset + length]

    index = SqliteIndex(None, read, lambda entry: decode_line(read(entry.offset, entry.length)).record)
    rows = Rows(0, Names())
    for offset, length in places:
        rows.add_line(offset, length, read(offset, length))
    with index.writing() as connection:
        rows.write(connection)
        rows.index_texts(connection)
        connection.execute("UPDATE state SET count = ?", (rows.count,))
    numbered = [Experiment(n, one.record, one.tags, one.note) for n, one in enumerate(found)]
    for one in numbered:
        index.annotate(one.number, Annotation(one.tags, one.note))
    # Names that a filter may use, whatever these records have.
    with index.writing() as connection:
        for keys in ("free", "deep"):
            connection.execute(
                "INSERT OR IGNORE INTO paths (keys) VALUES (?)", (orjson.dumps(["config", keys]).decode(),)
            )
        connection.execute("INSERT OR IGNORE INTO paths (keys) VALUES ('[\"dotted.name\"]')")
        connection.execute("INSERT OR IGNORE INTO statistics (name) VALUES ('clipped_ratio')")
    return index, numbered


def _listed(index, text, order, size):
    """All numbers of a list, page by page, through tokens."""
    query, cursor, numbers = Query(text, order, include_running=False, full=False, now=_NOW), Cursor(), []
    while True:
        page = page_of(index, None, query, cursor, size + 1)
        numbers += [listed.item.number for listed in page.items[:size]]
        if len(page.items) <= size:
            assert page.total == len(numbers)
            return numbers
        query, cursor = decode_token(query, encode_token(query, page.items[size - 1].after))


def _before(keys, *, newest_first):
    """Which of two experiments stands first."""

    def rank(value):
        if is_number(value):
            return 0, value
        return (1, fold(value).encode()) if isinstance(value, str) else (2, _bytes(value))

    def compare(one, other):
        for path, descending in keys:
            a, b = one.value(path), other.value(path)
            a, b = (None if is_number(value) and math.isnan(value) else value for value in (a, b))
            if a is None or b is None:
                result = (a is None) - (b is None)
            else:
                result = (rank(a) > rank(b)) - (rank(a) < rank(b))
                result = -result if descending else result
            if result:
                return result
        return (other.number - one.number) if newest_first else (one.number - other.number)

    return functools.cmp_to_key(compare)


def _bytes(value):
    return str(value).lower()[:1].encode() if isinstance(value, bool) else orjson.dumps(value)


_ORDERED = [
    (name, path) for name, path in {**ANY_FIELDS, **NUMBER_FIELDS}.items() if '"' not in name and name != "number"
]


def _law(data):
    found = data.draw(st.lists(experiments(), min_size=1, max_size=8), label="experiments")
    index, numbered = _indexed(found, [data.draw(st.booleans()) for _ in found])
    try:
        for _ in range(4):
            text, holds = data.draw(FILTERS, label="filter")
            expected = [one.number for one in numbered if holds(one)]
            assert _listed(index, text, "", data.draw(st.sampled_from([1, 3, 100]))) == expected, text
        keys = data.draw(st.lists(st.tuples(st.sampled_from(_ORDERED), st.booleans()), max_size=3), label="order")
        assume(len({path for (_, path), _ in keys}) == len(keys))
        newest_first = data.draw(st.booleans())
        order = ", ".join(
            [f"{name} desc" if down else name for (name, _), down in keys] + ["number desc"] * newest_first
        )
        ranked = sorted(numbered, key=_before([(path, down) for (_, path), down in keys], newest_first=newest_first))
        for size in (1, 100):
            assert _listed(index, "", order, size) == [one.number for one in ranked], order
    finally:
        index.close()


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_lists_are_what_python_makes_of_the_records(data):
    """The same lines match, on pages of any size, and they stand in the same order."""
    _law(data)


@pytest.mark.long
@pytest.mark.timeout(1200)
@settings(max_examples=1500, deadline=None)
@given(st.data())
def test_lists_are_what_python_makes_of_many_records(data):
    """The same for thousands of logs."""
    _law(data)
