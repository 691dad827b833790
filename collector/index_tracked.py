"""Values that filters and orders ask for and no column has: collected when they are first asked for, then kept.

Each path and each statistic has the number up to which its values are complete (`upto`); a question first goes on from
there. It goes in steps, so that appends are never held up for long, and so that one who gives up leaves what was done.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import orjson

from collector import patience
from collector.filters.scalars import any_holds, any_text_holds, doubles, has, places_of, unpacked
from collector.index import Entry
from collector.index_cut import Read, Window, stats_at, summary_at
from collector.index_database import Database
from collector.index_entries import ENTRY, entry_of
from collector.index_statistics import collected, packed
from collector.index_values import encode, lookup
from collector.records import Json, Record

# A transaction ends with the line that makes it so long.
_STEP_LINES, _STEP_BYTES = 4000, 8 << 20

ReadRecord = Callable[[Entry], Record]
# Number, place, length, the cut (`collector.index_cut`), or the summary.
Row = tuple[int, int, int, int | None, int, bytes | None]
Collect = Callable[[sqlite3.Connection, int, Sequence[Row]], None]
_ROWS = (
    "SELECT l.number, l.place, l.length, l.head, l.tail, s.summary FROM lines l"
    " LEFT JOIN summaries s ON s.number = l.number WHERE l.number >= ? ORDER BY l.number LIMIT ?"
)


class Tracked:
    """The tables `extra` and `layer_values` of one index.

    Args:
        read: bytes of the log, by offset and length.
        read_record: the full record of an entry that is not corrupt.
    """

    def __init__(self, read: Read, read_record: ReadRecord) -> None:
        self._read = read
        self._read_record = read_record
        self._database: Database | None = None
        self._names: dict[int, tuple[str, ...]] = {}
        self._layouts: dict[tuple[str, ...], int] = {}

    def use(self, database: Database) -> None:
        """Have the tables in a database, whose connections were registered here."""
        self._database = database

    def register(self, connection: sqlite3.Connection) -> None:
        """Give a connection the functions that `collector.filters.sql` uses."""

        def any_layer(layout: int, data: Any, pattern: str, operator: str, literal: bytes) -> bool:
            places = places_of(pattern, self._names_of(connection, layout))
            if isinstance(data, str):
                return any_text_holds(orjson.loads(data), places, operator, unpacked(literal))
            return any_holds(doubles(data), places, operator, unpacked(literal))

        connection.create_function("qlog_has", 3, has, deterministic=True)
        connection.create_function("qlog_any_layer", 5, any_layer)

    def _names_of(self, connection: sqlite3.Connection, layout: int) -> tuple[str, ...]:
        names = self._names.get(layout)
        if names is None:
            row = connection.execute("SELECT names FROM layouts WHERE id = ?", (layout,)).fetchone()
            names = self._names[layout] = tuple(orjson.loads(row[0]))
        return names

    def path(self, keys: Sequence[str]) -> int:
        """The number of a path, whose values are complete after this.

        Raises:
            TooSlowError, GoneError: the call that asks is over; what was collected is kept.
        """

        # As it stands in a summary, if it is there.
        needle, window = orjson.dumps(keys[-1]), Window(self._read)

        def collect(connection: sqlite3.Connection, found: int, rows: Sequence[Row]) -> None:
            values = []
            for number, place, length, head, tail, summary in rows:
                text = summary if head is None else summary_at(window.read, place, length, (head, tail))
                if text and needle in text and (value := encode(lookup(orjson.loads(text), keys))) is not None:
                    values.append((found, number, value))
            connection.executemany("INSERT OR REPLACE INTO extra VALUES (?, ?, ?)", values)

        return self._complete("paths", "keys", orjson.dumps(list(keys)).decode(), collect)

    def statistic(self, name: str) -> int:
        """The number of a statistic, whose values are complete after this.

        Raises:
            TooSlowError, GoneError: the call that asks is over; what was collected is kept.
        """

        window = Window(self._read)

        def stats_of(connection: sqlite3.Connection, row: Row) -> Json:
            number, place, _, head, tail, summary = row
            if head is not None:
                text = stats_at(window.read, place, (head, tail))
                stats: Json = orjson.loads(text) if text else None
                return stats
            if not summary:
                return None
            entry = entry_of(connection.execute(f"{ENTRY} WHERE l.number = ?", (number,)).fetchone(), self._read)
            return self._read_record(entry).get("activation_stats")

        def collect(connection: sqlite3.Connection, found: int, rows: Sequence[Row]) -> None:
            self._put(connection, found, name, ((row[0], stats_of(connection, row)) for row in rows))

        return self._complete("statistics", "name", name, collect)

    def _complete(self, table: str, column: str, text: str, collect: Collect) -> int:
        if self._database is None:
            raise AssertionError("an index uses its database before it is asked")
        select = f"SELECT id, upto, (SELECT count FROM state) FROM {table} WHERE {column} = ?"  # noqa: S608 - ours
        with self._database.read() as connection:
            row = connection.execute(select, (text,)).fetchone()
        while row is None or (row[1] or 0) < row[2]:
            patience.check()
            with self._database.write() as connection, self._layouts_of_it():
                connection.execute(f"INSERT OR IGNORE INTO {table} ({column}) VALUES (?)", (text,))  # noqa: S608 - ours
                found, upto, count = connection.execute(select, (text,)).fetchone()
                rows = _step(connection, upto or 0)
                collect(connection, found, rows)
                end = rows[-1][0] + 1 if rows else count
                connection.execute(f"UPDATE {table} SET upto = ? WHERE id = ?", (end, found))  # noqa: S608 - ours
            row = (found, end, count)
        return int(row[0])

    @contextmanager
    def _layouts_of_it(self) -> Iterator[None]:
        """A transaction that fails takes the layouts with it that it made."""
        try:
            yield
        except BaseException:
            self._layouts.clear()
            raise

    def amend(self, connection: sqlite3.Connection, number: int, record: Record) -> None:
        """Bring the values of one line up to date; inside of a transaction."""
        connection.execute("DELETE FROM extra WHERE number = ?", (number,))
        connection.execute("DELETE FROM layer_values WHERE number = ?", (number,))
        for found, keys in connection.execute("SELECT id, keys FROM paths WHERE upto > ?", (number,)).fetchall():
            value = encode(lookup(record, orjson.loads(keys)))
            if value is not None:
                connection.execute("INSERT INTO extra VALUES (?, ?, ?)", (found, number, value))
        for found, name in connection.execute("SELECT id, name FROM statistics WHERE upto > ?", (number,)).fetchall():
            self._put(connection, found, name, iter([(number, record.get("activation_stats"))]))

    def _put(self, connection: sqlite3.Connection, found: int, name: str, stats: Iterator[tuple[int, Json]]) -> None:
        values = []
        for number, measured in stats:
            tensors, numbers = collected(measured, name)
            if tensors:
                values.append((found, number, self._layout(connection, tensors), packed(numbers)))
        connection.executemany("INSERT OR REPLACE INTO layer_values VALUES (?, ?, ?, ?)", values)

    def _layout(self, connection: sqlite3.Connection, tensors: tuple[str, ...]) -> int:
        known = self._layouts.get(tensors)
        if known is None:
            text = orjson.dumps(tensors).decode()
            connection.execute("INSERT OR IGNORE INTO layouts (names) VALUES (?)", (text,))
            (known,) = connection.execute("SELECT id FROM layouts WHERE names = ?", (text,)).fetchone()
            self._layouts[tensors] = known
        return known


def _step(connection: sqlite3.Connection, start: int) -> list[Row]:
    """Some lines from a number on."""
    rows, size = [], 0
    for row in connection.execute(_ROWS, (start, _STEP_LINES)):
        rows.append(row)
        size += row[2]
        if size >= _STEP_BYTES:
            break
    return rows


__all__ = ["ReadRecord", "Tracked"]
