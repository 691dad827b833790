"""Lines of the log as rows of the index's tables."""

import sqlite3
from dataclasses import dataclass, field
from functools import lru_cache

import orjson

from collector.index import Entry
from collector.index_cut import Cut, cut_of
from collector.index_names import Names
from collector.index_schema import COLUMNS
from collector.index_values import FALSE, HOT, Value, encode, hot_values, instant, words_of
from collector.lines import Line, LineError, decode_line, split_lost_newlines
from collector.records import EVENTS_KEY, Json, Record

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
            found = decode_line(line)
            record = found.record
            stats = record.get("activation_stats")
            if isinstance(stats, dict):
                del record["activation_stats"]
            else:
                stats = None
            summary = orjson.dumps(record)
        except (LineError, orjson.JSONEncodeError) as error:
            return f"the line at byte {offset} is corrupt: {error}"
        cut = cut_of(line, summary) if found.verified else None
        self._add(self.first + self.count, offset, length, record, stats, summary, cut, verified=found.verified)
        return ""

    def add_entry(self, entry: Entry) -> None:
        """A line that was read already."""
        if entry.corrupt:
            self._add_corrupt(entry.offset, entry.length, entry.error)
            return
        record, stats = split(entry.record or {})
        self._add(
            entry.number,
            entry.offset,
            entry.length,
            record,
            stats,
            entry.summary,
            entry.cut,
            verified=entry.verified,
            experiment_id=entry.experiment_id,
        )

    def _add(
        self,
        number: int,
        offset: int,
        length: int,
        record: Record,
        stats: dict[str, Json] | None,
        summary: bytes,
        cut: Cut | None,
        *,
        verified: bool,
        experiment_id: Json = None,
    ) -> None:
        self.lines += (
            number,
            offset,
            length,
            count_of(stats),
            events_of(record),
            verified,
            0,
            *(cut or (None, None)),
            instant(record),
            FALSE,
            experiment_id or id_of(record) or None,
            *hot_values(record),
            encode(record.get("error")),
        )
        if cut is None:
            self.summaries += (number, summary)
        self.texts += (number, words_of(record))
        self.names.learn(record, stats)
        self.count += 1

    def _add_corrupt(self, offset: int, length: int, error: str) -> None:
        number = self.first + self.count
        self.lines += (number, offset, length, 0, None, False, 1, None, None, None, FALSE, None)
        self.lines += ("CORRUPT", *_NOTHING[1:], error)
        self.texts += (number, "")
        self.count += 1
        self.corrupt += 1

    def write(self, connection: sqlite3.Connection) -> None:
        """Put them into the tables; inside of a transaction."""
        _insert(connection, "lines", COLUMNS, self.lines)
        _insert(connection, "summaries", ("number", "summary"), self.summaries)
        _insert(connection, "texts", ("number", "text"), self.texts)
        # Numbers that are in no log need not follow each other.
        numbers = self.texts[::2]
        if numbers:
            connection.execute(
                "INSERT INTO words (rowid, text) SELECT number, text FROM texts WHERE number >= ? AND number <= ?",
                (min(numbers), max(numbers)),  # type: ignore[type-var]
            )
        self.names.write(connection)


def entry_from_record(number: int, offset: int, length: int, line: Line, text: bytes | None = None) -> Entry:
    """The entry of a record that has been read.

    Args:
        text: the line, where it stands in a log with its checksum.
    """
    record, stats = split(line.record)
    summary = orjson.dumps(record)
    return Entry(
        number,
        offset,
        length,
        experiment_id=id_of(record),
        summary=summary,
        layer_stats_count=count_of(stats),
        events=events_of(record),
        verified=line.verified,
        record=line.record,
        cut=None if text is None else cut_of(text, summary),
    )


def split(record: Record) -> tuple[Record, dict[str, Json] | None]:
    """A record without its statistics, and these; what stands in their place and is no object stays."""
    stats = record.get("activation_stats")
    if not isinstance(stats, dict):
        return record, None
    return {key: value for key, value in record.items() if key != "activation_stats"}, stats


def id_of(record: Record) -> str:
    """The experiment's id; empty where it has none."""
    found = record.get("experiment_id")
    return found if isinstance(found, str) else ""


def count_of(stats: dict[str, Json] | None) -> int:
    """How many tensors there are."""
    return sum([isinstance(value, dict) for value in stats.values()]) if stats else 0


def events_of(record: Record) -> int | None:
    """How many events the experiment sent; None where not known."""
    events = record.get(EVENTS_KEY)
    return events if type(events) is int and 0 <= events < 2**63 else None


def _insert(connection: sqlite3.Connection, table: str, columns: tuple[str, ...], values: list[Value]) -> None:
    step = _STATEMENT_LINES * len(columns)
    for start in range(0, len(values), step):
        part = values[start : start + step] if len(values) > step else values
        connection.execute(_insertion(table, columns, len(part) // len(columns)), part)


@lru_cache(64)
def _insertion(table: str, columns: tuple[str, ...], rows: int) -> str:
    row = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * rows)}"  # noqa: S608 - our names


__all__ = ["Rows", "count_of", "entry_from_record", "events_of", "id_of", "split"]
