"""Values that filters and orders ask for and no column has: collected when they are first asked for, then kept.

Each path and each statistic has the number up to which its values are complete (`upto`); a question first goes on from
there. It goes in steps, so that appends are never held up for long.
"""

import sqlite3
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import orjson

from collector.filters.scalars import any_holds, any_text_holds, doubles, has, places_of, unpacked
from collector.index_database import Database
from collector.index_values import encode, lookup
from collector.records import NON_FINITE, Json, Record

# Lines a transaction.
_STEP, _STATS_STEP = 4000, 200

ReadRecord = Callable[[int], Record | None]


class Tracked:
    """The tables `extra` and `layer_values` of one index.

    Args:
        database: of the index.
        read_record: the full record of a line; None for a corrupt one.
    """

    def __init__(self, database: Database, read_record: ReadRecord) -> None:
        self._database = database
        self._read_record = read_record
        self._layouts: dict[int, tuple[str, ...]] = {}

    def register(self, connection: sqlite3.Connection) -> None:
        """Give a connection the functions that `collector.filters.sql` uses."""

        def any_layer(layout: int, data: Any, pattern: str, operator: str, literal: bytes) -> bool:
            places = places_of(pattern, self._names(connection, layout))
            if isinstance(data, str):
                return any_text_holds(orjson.loads(data), places, operator, unpacked(literal))
            return any_holds(doubles(data), places, operator, unpacked(literal))

        connection.create_function("qlog_has", 3, has, deterministic=True)
        connection.create_function("qlog_any_layer", 5, any_layer)

    def _names(self, connection: sqlite3.Connection, layout: int) -> tuple[str, ...]:
        names = self._layouts.get(layout)
        if names is None:
            row = connection.execute("SELECT names FROM layouts WHERE id = ?", (layout,)).fetchone()
            names = self._layouts[layout] = tuple(orjson.loads(row[0]))
        return names

    def path(self, keys: Sequence[str]) -> int:
        """The number of a path, whose values are complete after this."""
        text = orjson.dumps(list(keys)).decode()

        def collect(connection: sqlite3.Connection, found: int, start: int, end: int) -> None:
            rows = connection.execute(
                "SELECT number, summary FROM details WHERE number >= ? AND number < ?", (start, end)
            )
            values = (
                (found, number, encode(lookup(orjson.loads(summary), keys))) for number, summary in rows if summary
            )
            connection.executemany(
                "INSERT OR REPLACE INTO extra VALUES (?, ?, ?)", (v for v in values if v[2] is not None)
            )

        return self._complete("paths", "keys", text, _STEP, collect)

    def statistic(self, name: str) -> int:
        """The number of a statistic, whose values are complete after this."""

        def collect(connection: sqlite3.Connection, found: int, start: int, end: int) -> None:
            select = "SELECT number FROM lines WHERE number >= ? AND number < ?"
            for (number,) in connection.execute(select, (start, end)).fetchall():
                self._put_statistic(connection, found, name, number, self._read_record(number) or {})

        return self._complete("statistics", "name", name, _STATS_STEP, collect)

    def _complete(self, table: str, column: str, text: str, step: int, collect: Callable[..., None]) -> int:
        select = f"SELECT id, upto, (SELECT count FROM state) FROM {table} WHERE {column} = ?"  # noqa: S608 - ours
        with self._database.read() as connection:
            row = connection.execute(select, (text,)).fetchone()
        while row is None or (row[1] or 0) < row[2]:
            with self._database.write() as connection:
                connection.execute(f"INSERT OR IGNORE INTO {table} ({column}) VALUES (?)", (text,))  # noqa: S608 - ours
                found, upto, count = connection.execute(select, (text,)).fetchone()
                end = self._step_end(connection, upto or 0, step, count)
                collect(connection, found, upto or 0, end)
                connection.execute(f"UPDATE {table} SET upto = ? WHERE id = ?", (end, found))  # noqa: S608 - ours
            row = (found, end, count)
        return int(row[0])

    @staticmethod
    def _step_end(connection: sqlite3.Connection, start: int, step: int, count: int) -> int:
        (last,) = connection.execute(
            "SELECT max(number) FROM (SELECT number FROM lines WHERE number >= ? ORDER BY number LIMIT ?)",
            (start, step),
        ).fetchone()
        return count if last is None else int(last) + 1

    def amend(self, connection: sqlite3.Connection, number: int, record: Record) -> None:
        """Bring the values of one line up to date; inside of a transaction."""
        connection.execute("DELETE FROM extra WHERE number = ?", (number,))
        connection.execute("DELETE FROM layer_values WHERE number = ?", (number,))
        for found, keys in connection.execute("SELECT id, keys FROM paths WHERE upto > ?", (number,)).fetchall():
            value = encode(lookup(record, orjson.loads(keys)))
            if value is not None:
                connection.execute("INSERT INTO extra VALUES (?, ?, ?)", (found, number, value))
        for found, name in connection.execute("SELECT id, name FROM statistics WHERE upto > ?", (number,)).fetchall():
            self._put_statistic(connection, found, name, number, record)

    def _put_statistic(
        self, connection: sqlite3.Connection, found: int, name: str, number: int, record: Record
    ) -> None:
        stats = record.get("activation_stats")
        if not isinstance(stats, dict):
            return
        names, values = [], []
        for tensor, measured in stats.items():
            value = statistic_of(measured, name)
            if value is not None:
                names.append(tensor)
                values.append(value)
        if not names:
            return
        packed = orjson.dumps(names).decode()
        connection.execute("INSERT OR IGNORE INTO layouts (names) VALUES (?)", (packed,))
        (layout,) = connection.execute("SELECT id FROM layouts WHERE names = ?", (packed,)).fetchone()
        connection.execute(
            "INSERT OR REPLACE INTO layer_values VALUES (?, ?, ?, ?)", (found, number, layout, _pack(values))
        )


def statistic_of(measured: Json, name: str) -> Json:
    """A statistic of a tensor by its dotted path, whose names may have dots."""
    if not isinstance(measured, dict):
        return None
    if name in measured:
        return measured[name]
    for place in (place for place, character in enumerate(name) if character == "."):
        found = statistic_of(measured.get(name[:place]), name[place + 1 :])
        if found is not None:
            return found
    return None


def statistics_of(stats: Mapping[str, Json]) -> Iterable[str]:
    """The statistics that tensors have, dotted."""
    return dict.fromkeys(chain.from_iterable(_dotted(value, "") for value in stats.values() if isinstance(value, dict)))


def _dotted(value: Mapping[str, Json], prefix: str) -> Iterable[str]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _dotted(item, f"{prefix}{key}.")
        else:
            yield prefix + key


def _pack(values: Sequence[Json]) -> bytes | str:
    """Numbers as doubles; anything else as JSON."""
    numbers = [NON_FINITE.get(value, value) if isinstance(value, str) else value for value in values]
    if all(type(number) in (int, float) for number in numbers):
        try:
            return array("d", numbers).tobytes()  # type: ignore[type-var]
        except OverflowError:
            pass
    return orjson.dumps(values).decode()


__all__ = ["Tracked", "statistic_of", "statistics_of"]
