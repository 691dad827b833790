"""Lines of the log as rows of the index's tables."""

import sqlite3
from dataclasses import dataclass, field
from functools import lru_cache

import orjson

from collector.index import Entry
from collector.index_cut import Cut, cut_of
from collector.index_names import Names, objects_in
from collector.index_records import events_of, id_of, split, take_stats
from collector.index_schema import COLUMNS
from collector.index_values import FALSE, HOT, Value, encode, hot_values, instant, words_of
from collector.lines import CHECKSUM_KEY, LineError, decode_as_written, decode_line, split_lost_newlines
from collector.records import Json, Record

# Lines a statement: SQLite has it alone for a while, and other threads the interpreter.
_STATEMENT_LINES = 500
_NOTHING: tuple[Value, ...] = (None,) * len(HOT)


@dataclass(slots=True)
class Rows:
    """Rows of lines whose numbers follow each other, that are in no table yet.

    Attributes:
        first: the number of the first.
        names: told of the names in them.
        count, corrupt: how many there are.
        lines, summaries, texts: the values, row after row.
    """

    first: int
    names: Names
    count: int = 0
    corrupt: int = 0
    lines: list[Value] = field(default_factory=list)
    summaries: list[Value] = field(default_factory=list)
    texts: list[Value] = field(default_factory=list)

    def add_line(self, offset: int, length: int, line: bytes | None) -> None:
        """A line, or several whose newlines are damaged; None is one that is too long to be read."""
        if line is None:
            self._add_corrupt(offset, length, f"the line at byte {offset} is too long: {length} bytes")
            return
        error = self._try(offset, length, line)
        if not error:
            return
        pieces = split_lost_newlines(line)
        if len(pieces) < 2:
            self._add_corrupt(offset, length, error)
            return
        for piece in pieces:
            # All but the last end in the byte that was a newline.
            text = piece if piece is pieces[-1] else piece[:-1]
            if error := self._try(offset, len(text), text):
                self._add_corrupt(offset, len(text), error)
            offset += len(piece)

    def _try(self, offset: int, length: int, line: bytes) -> str:
        """Add a line; says why it cannot be read, where it cannot."""
        try:
            record = decode_as_written(line)
            cut = None if record is None else cut_of(line, tuple(record))
            verified = record is not None
            if record is None:
                found = decode_line(line)
                record, verified = found.record, found.verified
            else:
                del record[CHECKSUM_KEY]
            stats = take_stats(record)
            if cut is None:
                summary = orjson.dumps(record)
                self.summaries += (self.first + self.count, summary)
                objects = objects_in(summary)
            else:
                objects = objects_in(line, 0, cut[0]) + objects_in(line, cut[1])
        except (LineError, orjson.JSONEncodeError) as error:
            return f"the line at byte {offset} is corrupt: {error}"
        self._add(self.first + self.count, offset, length, record, objects, stats, cut, verified)
        return ""

    def add_entry(self, entry: Entry) -> None:
        """A line that was read already."""
        record, stats = split(entry.record or {})
        objects = objects_in(entry.summary)
        self._add(entry.number, entry.offset, entry.length, record, objects, stats, entry.cut, entry.verified)
        if entry.cut is None:
            self.summaries += (entry.number, entry.summary)

    def _add(
        self,
        number: int,
        offset: int,
        length: int,
        record: Record,
        objects: int,
        stats: dict[str, Json],
        cut: Cut | None,
        verified: bool,
    ) -> None:
        tensors = [value for value in stats.values() if type(value) is dict]
        self.names.learn(record, objects, tensors)
        head, tail = cut or (None, None)
        self.lines += (
            *(number, offset, length, len(tensors), events_of(record), verified, 0, head, tail),
            *(instant(record), FALSE, id_of(record) or None),
            *hot_values(record),
            encode(record.get("error")),
        )
        self.texts += (number, words_of(record))
        self.count += 1

    def _add_corrupt(self, offset: int, length: int, error: str) -> None:
        number = self.first + self.count
        self.lines += (number, offset, length, 0, None, False, 1, None, None, None, FALSE, None)
        self.lines += ("CORRUPT", *_NOTHING[1:], error)
        self.texts += (number, "")
        self.count += 1
        self.corrupt += 1

    def write(self, connection: sqlite3.Connection) -> None:
        """Put them into the tables, but for `words`; inside of a transaction."""
        _insert(connection, "lines", COLUMNS, self.lines)
        _insert(connection, "summaries", ("number", "summary"), self.summaries)
        _insert(connection, "texts", ("number", "text"), self.texts)
        self.names.write(connection)

    def index_texts(self, connection: sqlite3.Connection) -> None:
        """Put them into `words`; inside of the transaction."""
        # Numbers that are in no log need not follow each other.
        numbers = self.texts[::2]
        if numbers:
            connection.execute(
                "INSERT INTO words (rowid, text) SELECT number, text FROM texts WHERE number >= ? AND number <= ?",
                (min(numbers), max(numbers)),  # type: ignore[type-var]
            )


def _insert(connection: sqlite3.Connection, table: str, columns: tuple[str, ...], values: list[Value]) -> None:
    step = _STATEMENT_LINES * len(columns)
    for start in range(0, len(values), step):
        part = values[start : start + step] if len(values) > step else values
        connection.execute(_insertion(table, columns, len(part) // len(columns)), part)


@lru_cache(64)
def _insertion(table: str, columns: tuple[str, ...], rows: int) -> str:
    row = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * rows)}"  # noqa: S608 - our names


__all__ = ["Rows"]
