"""The index in SQLite: in a file beside the log, or private where nothing may be written.

`lines` has what most lists need, `details` the records without statistics, `words` finds text; what else filters ask
for is collected when it is first asked for (`collector.index_tracked`). Several processes may use one file: each change
is a transaction that first looks where the index stands.
"""

import re
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from collector.annotations import Annotation
from collector.errors import StoreUnavailableError
from collector.filters.fields import Keys
from collector.filters.sql import Places, Sql
from collector.index import Entry, LogMark
from collector.index_database import Database
from collector.index_schema import DELETE_WORDS, INSERT_DETAILS, INSERT_LINE, INSERT_WORDS, SCHEMA, VERSION
from collector.index_tracked import Tracked, statistics_of
from collector.index_values import FALSE, HOT, TRUE, Value, encode, hot_values, instant, paths_of, shape_of, words_of
from collector.records import Record

_ENTRY = (
    "SELECT l.number, l.place, l.length, l.experiment_id, d.summary, l.stats_count, l.events, l.verified, d.corrupt,"
    " l.tags, l.note, l.archived FROM lines l JOIN details d ON d.number = l.number"
)
_ID = "experiment_id IS NOT NULL AND experiment_id"
_AFTER_ALL = "\U0010ffff"
# Bounds on what hostile records make of the names that are known, and on counts that are kept.
_MOST_NAMES, _MOST_SHAPES, _MOST_COUNTS = 20_000, 10_000, 256


@dataclass(frozen=True, slots=True)
class Found:
    """One line that a question found, with the values that it was ordered by."""

    entry: Entry
    keys: tuple[Value, ...]


@dataclass
class _Count:
    generation: int
    upto: int
    count: int


class SqliteIndex:
    """See `collector.index.Index`.

    Args:
        path: of the file; None for a private one.
        read_record: the full record of an entry, for statistics; None for a corrupt one.

    Raises:
        sqlite3.Error: it cannot be used.
    """

    def __init__(self, path: Path | None, read_record: Callable[[Entry], Record]) -> None:
        self._tracked: Tracked | None = None
        self._damaged = False
        self._database = Database(path, self._prepare)
        self._tracked = Tracked(self._database, self._record_of(read_record))
        try:
            with self._database.write() as connection:
                self._tracked.register(connection)
                self.fresh = connection.execute("PRAGMA user_version").fetchone()[0] == 0
                if self.fresh and connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                    raise sqlite3.DatabaseError("not an index")
                if self.fresh:
                    for statement in _statements(SCHEMA):
                        connection.execute(statement)
                elif connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                    raise sqlite3.DatabaseError("an index of another version")
        except BaseException:
            self._database.close()
            raise
        # Shapes of records and tensors whose names are in the tables.
        self._shapes: set[object] = set()
        self._names = 0
        self._paths: tuple[int, Mapping[str, Sequence[Keys]]] | None = None
        self._counts: OrderedDict[tuple[str, tuple[Value, ...]], _Count] = OrderedDict()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if self._tracked is not None:
            self._tracked.register(connection)

    def _record_of(self, read_record: Callable[[Entry], Record]) -> Callable[[int], Record | None]:
        def record(number: int) -> Record | None:
            entry = self.by_number(number)
            if entry is None or entry.corrupt:
                return None
            return read_record(entry)

        return record

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def unusable(self) -> bool:
        """Whether it has to be made anew: its file is damaged, was deleted or replaced."""
        return self._damaged or self._database.gone()

    @contextmanager
    def reading(self, *, whole: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection; a damaged index is told of, and made anew by the store."""
        try:
            with self._database.read(whole=whole) as connection:
                yield connection
        except sqlite3.Error as error:
            self._damaged = True
            raise StoreUnavailableError(f"the index failed ({error}): it is made anew, try again") from None

    # --- the log's lines ---

    def indexed(self) -> int:
        """See `Index`."""
        return self._state("indexed")

    def count(self) -> int:
        """See `Index`."""
        return self._state("count")

    def corrupt_count(self) -> int:
        """See `Index`."""
        return self._state("corrupt")

    def _state(self, column: str) -> int:
        with self.reading() as connection:
            return int(connection.execute(f"SELECT {column} FROM state").fetchone()[0])  # noqa: S608 - ours

    def log_mark(self) -> LogMark | None:
        """The mark of the log that was indexed."""
        with self.reading() as connection:
            text = connection.execute("SELECT log FROM state").fetchone()[0]
        if not text:
            return None
        mark = orjson.loads(text)
        return LogMark(mark["device"], mark["inode"], mark["mtime_ns"], tuple(mark["head"]), tuple(mark["tail"]))

    def extend(self, start: int, end: int, entries: Sequence[Entry], log: LogMark) -> bool:
        """See `Index`."""
        with self._database.write() as connection:
            indexed, count = connection.execute("SELECT indexed, count FROM state").fetchone()
            if indexed != start or (entries and entries[0].number != count):
                return False
            self._insert(connection, entries)
            connection.execute(
                "UPDATE state SET count = count + ?, corrupt = corrupt + ?, indexed = ?, log = ?",
                (len(entries), sum(entry.corrupt for entry in entries), end, orjson.dumps(asdict(log)).decode()),
            )
        return True

    def put(self, entries: Sequence[Entry]) -> None:
        """Add what is in no log: entries with any numbers, each of which is new."""
        with self._database.write() as connection:
            self._insert(connection, entries)
            connection.execute("UPDATE state SET count = ?", (1 + max(entry.number for entry in entries),))

    def _insert(self, connection: sqlite3.Connection, entries: Sequence[Entry]) -> None:
        lines, details, words = [], [], []
        for entry in entries:
            record = entry.record or {}
            text = words_of(record)
            lines.append(_line(entry, record))
            details.append((entry.number, text, entry.summary, entry.error))
            words.append((entry.number, text))
            self._learn(connection, record)
        connection.executemany(INSERT_LINE, lines)
        connection.executemany(INSERT_DETAILS, details)
        connection.executemany(INSERT_WORDS, words)

    def _learn(self, connection: sqlite3.Connection, record: Record) -> None:
        """Take the names in a record into the tables of names."""
        stats = record.get("activation_stats")
        stats = stats if isinstance(stats, dict) else {}
        summary = {key: value for key, value in record.items() if key != "activation_stats"}
        first = next((tuple(value) for value in stats.values() if isinstance(value, dict)), ())
        shape = (shape_of(summary), tuple(stats), first)
        if shape in self._shapes or self._names > _MOST_NAMES:
            return
        if len(self._shapes) >= _MOST_SHAPES:
            self._shapes.clear()
        self._shapes.add(shape)
        keys = [(orjson.dumps(path).decode(),) for path in paths_of(summary)]
        names = [(name,) for name in statistics_of(stats)]
        self._names += connection.executemany("INSERT OR IGNORE INTO paths (keys) VALUES (?)", keys).rowcount
        connection.executemany("INSERT OR IGNORE INTO statistics (name) VALUES (?)", names)

    # --- what was said and completed later ---

    def annotate(self, number: int, annotation: Annotation) -> None:
        """See `Index`."""
        entry = self.by_number(number)
        if entry is None or entry.annotation == annotation:
            return
        with self._database.write() as connection:
            connection.execute(
                "UPDATE lines SET tags = ?, note = ?, archived = ? WHERE number = ?",
                (
                    orjson.dumps(annotation.tags) if annotation.tags else None,
                    annotation.note or None,
                    TRUE if annotation.archived else FALSE,
                    number,
                ),
            )
            self._rewrite_words(connection, number)

    def amend(self, number: int, record: Record) -> None:
        """See `Index`."""
        summary = {key: value for key, value in record.items() if key != "activation_stats"}
        stats = record.get("activation_stats")
        entry = self.by_number(number)
        if entry is None or self._tracked is None or entry.summary == orjson.dumps(summary):
            return
        events, experiment_id = record.get("events"), record.get("experiment_id")
        values = {
            **dict(zip(HOT.values(), hot_values(record), strict=True)),
            "experiment_id": experiment_id if isinstance(experiment_id, str) and experiment_id else None,
            "events": events if type(events) is int and 0 <= events < 2**63 else None,
            "stats_count": sum(isinstance(item, dict) for item in stats.values()) if isinstance(stats, dict) else 0,
            "instant": instant(record),
            "amended": 1,
            "error": encode(record.get("error")),
        }
        assigned = ", ".join(f"{column} = ?" for column in values)
        with self._database.write() as connection:
            connection.execute(f"UPDATE lines SET {assigned} WHERE number = ?", (*values.values(), number))  # noqa: S608
            connection.execute(
                "UPDATE details SET summary = ?, corrupt = '' WHERE number = ?", (orjson.dumps(summary), number)
            )
            connection.execute("UPDATE state SET corrupt = corrupt - ?", (int(entry.corrupt),))
            self._learn(connection, record)
            self._tracked.amend(connection, number, record)
            self._rewrite_words(connection, number)

    def _rewrite_words(self, connection: sqlite3.Connection, number: int) -> None:
        row = connection.execute(
            "SELECT d.words, d.summary, l.tags, l.note FROM details d JOIN lines l ON l.number = d.number"
            " WHERE d.number = ?",
            (number,),
        ).fetchone()
        if row is None:
            return
        old, summary, tags, note = row
        record = orjson.loads(summary) if summary else {}
        new = words_of(record, orjson.loads(tags) if tags else (), note or "")
        connection.execute(DELETE_WORDS, (number, old))
        connection.execute(INSERT_WORDS, (number, new))
        connection.execute("UPDATE details SET words = ? WHERE number = ?", (new, number))
        connection.execute("UPDATE state SET generation = generation + 1")

    def spoken_of(self) -> tuple[set[int], set[int]]:
        """The lines that have an annotation, and those that were amended."""
        with self.reading() as connection:
            said = "tags IS NOT NULL OR note IS NOT NULL OR archived = x'74'"
            annotated = {row[0] for row in connection.execute(f"SELECT number FROM lines WHERE {said}")}  # noqa: S608
            amended = {row[0] for row in connection.execute("SELECT number FROM lines WHERE amended = 1")}
        return annotated, amended

    def spoil(self) -> None:
        """Have it made anew: by this process now, by others when they look at the file next."""
        with self._database.write() as connection:
            connection.execute("UPDATE state SET log = '', indexed = -1")
        self._damaged = True

    def mark(self, name: str) -> str:
        """See `Index`."""
        with self.reading() as connection:
            row = connection.execute("SELECT text FROM marks WHERE name = ?", (name,)).fetchone()
        return row[0] if row else ""

    def set_mark(self, name: str, text: str) -> None:
        """See `Index`."""
        with self._database.write() as connection:
            connection.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", (name, text))

    # --- look-ups ---

    def by_number(self, number: int) -> Entry | None:
        """See `Index`."""
        return self._one("WHERE l.number = ?", number) if 0 <= number < 2**63 else None

    def by_id(self, experiment_id: str) -> Entry | None:
        """See `Index`."""
        return self._one(f"WHERE l.{_ID} = ? ORDER BY l.number LIMIT 1", experiment_id)

    def first_corrupt(self) -> Entry | None:
        """The first corrupt line."""
        return self._one("WHERE l.status = 'CORRUPT' AND d.corrupt != '' ORDER BY l.number LIMIT 1")

    def _one(self, where: str, *values: Value) -> Entry | None:
        with self.reading() as connection:
            row = connection.execute(f"{_ENTRY} {where}", values).fetchone()
        return None if row is None else _entry(row)

    def ids_with_prefix(self, prefix: str, limit: int) -> list[str]:
        """See `Index`."""
        with self.reading() as connection:
            rows = connection.execute(
                f"SELECT DISTINCT lower(experiment_id) FROM lines WHERE {_ID} >= ? AND experiment_id <= ?"  # noqa: S608
                " ORDER BY experiment_id LIMIT ?",
                (prefix, prefix + _AFTER_ALL, limit),
            ).fetchall()
        return [row[0] for row in rows]

    def page(self, start: int, limit: int, *, descending: bool) -> list[Entry]:
        """See `Index`."""
        where = "WHERE l.number <= ? ORDER BY l.number DESC" if descending else "WHERE l.number >= ? ORDER BY l.number"
        with self.reading() as connection:
            rows = connection.execute(f"{_ENTRY} {where} LIMIT ?", (min(start, 2**63 - 1), limit)).fetchall()
        return [_entry(row) for row in rows]

    # --- questions ---

    def paths(self) -> Mapping[str, Sequence[Keys]]:
        """See `collector.filters.fields.Catalogue`."""
        found: dict[str, list[Keys]] = {}
        with self.reading() as connection:
            (latest,) = connection.execute("SELECT max(id) FROM paths").fetchone()
            # Names are only ever added.
            if self._paths is not None and self._paths[0] == latest:
                return self._paths[1]
            for (text,) in connection.execute("SELECT keys FROM paths"):
                keys = tuple(orjson.loads(text))
                found.setdefault(".".join(keys), []).append(keys)
        self._paths = (latest, found)
        return found

    def statistics(self) -> Sequence[str]:
        """See `collector.filters.fields.Catalogue`."""
        with self.reading() as connection:
            return [name for (name,) in connection.execute("SELECT name FROM statistics")]

    def places(self) -> Places:
        """Where values without a column are, for `compile_filter`."""
        if self._tracked is None:
            raise AssertionError("an index has these from its start")
        return Places(self._tracked.path, self._tracked.statistic)

    def select(self, where: Sql, keys: Sequence[Sql], order: str, after: Sql, limit: int) -> list[Found]:
        """Lines for which two expressions hold, in an order.

        Args:
            where, after: expressions on a row `l` of `lines`.
            keys: more expressions, whose values are wanted too.
            order: what stands behind ORDER BY; `k0`, `k1`, ... are the keys.
            limit: at most so many.
        """
        columns = "".join(f", {key.text} AS k{place}" for place, key in enumerate(keys))
        # The lines first, then what is shown of them: a sort moves no summaries.
        inner = (
            f"SELECT l.number AS n{columns} FROM lines l WHERE ({where.text}) AND ({after.text})"  # noqa: S608 - bound
            f" ORDER BY {order} LIMIT ?"
        )
        values = (*(value for key in keys for value in key.values), *where.values, *after.values, limit)
        with self.reading(whole=True) as connection:
            rows = connection.execute(inner, values).fetchall()
            return [
                Found(_entry(connection.execute(f"{_ENTRY} WHERE l.number = ?", (row[0],)).fetchone()), tuple(row[1:]))
                for row in rows
            ]

    def matching(self, where: Sql) -> int:
        """How many lines an expression holds for. Counted once; later only what was added since."""
        name = (where.text, where.values)
        with self.reading(whole=True) as connection:
            count, generation = connection.execute("SELECT count, generation FROM state").fetchone()
            known = self._counts.get(name)
            if known is None or known.generation != generation or known.upto > count:
                known = _Count(generation, 0, 0)
            if known.upto < count:
                row = connection.execute(
                    f"SELECT count(*) FROM lines l WHERE l.number >= ? AND l.number < ? AND ({where.text})",  # noqa: S608
                    (known.upto, count, *where.values),
                ).fetchone()
                known = _Count(generation, count, known.count + row[0])
        self._counts[name] = known
        while len(self._counts) > _MOST_COUNTS:
            self._counts.popitem(last=False)
        return known.count


def _statements(script: str) -> Iterator[str]:
    for statement in re.sub(r"--.*", "", script).split(";"):
        if statement.strip():
            yield statement


def _line(entry: Entry, record: Record) -> tuple[Value, ...]:
    hot = hot_values(record)
    error = encode(record.get("error"))
    if entry.corrupt:
        hot, error = ("CORRUPT", *hot[1:]), entry.error
    return (
        entry.number,
        entry.offset,
        entry.length,
        entry.layer_stats_count,
        entry.events if entry.events is None or entry.events < 2**63 else None,
        entry.verified,
        instant(record),
        FALSE,
        entry.experiment_id or None,
        *hot,
        None,
        None,
        error,
    )


def _entry(row: Sequence[object]) -> Entry:
    number, place, length, experiment_id, summary, stats, events, verified, error, tags, note, archived = row
    annotation = Annotation(
        tuple(orjson.loads(tags)) if isinstance(tags, bytes) else (), str(note or ""), archived == TRUE
    )
    return Entry(
        number,  # type: ignore[arg-type]
        place,  # type: ignore[arg-type]
        length,  # type: ignore[arg-type]
        str(experiment_id or ""),
        summary,  # type: ignore[arg-type]
        stats,  # type: ignore[arg-type]
        events,  # type: ignore[arg-type]
        bool(verified),
        str(error),
        annotation,
    )


__all__ = ["Found", "SqliteIndex"]
