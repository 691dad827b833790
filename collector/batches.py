"""The table of stored events: its rows as values, and the questions asked of it."""

import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

logger = logging.getLogger(__name__)

VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS batches (
    id INTEGER PRIMARY KEY,
    experiment_id TEXT NOT NULL,
    first_offset INTEGER NOT NULL,
    count INTEGER NOT NULL,
    tensors INTEGER NOT NULL,
    finishes INTEGER NOT NULL,
    payload BLOB NOT NULL,
    UNIQUE (experiment_id, first_offset)
)
"""
INSERT = (
    "INSERT OR REPLACE INTO batches (experiment_id, first_offset, count, tensors, finishes, payload)"
    " VALUES (?, ?, ?, ?, ?, ?)"
)
DELETE = "DELETE FROM batches WHERE experiment_id = ?"
_ROWS = """
SELECT experiment_id, first_offset, count, tensors, finishes, length(payload) FROM batches ORDER BY first_offset, id
"""
_ALL = "SELECT experiment_id, first_offset, count, payload FROM batches ORDER BY experiment_id, first_offset"
_PLACES = "SELECT id, experiment_id, first_offset, count FROM batches ORDER BY experiment_id, first_offset"
_FROM = (
    "SELECT first_offset, count, payload FROM batches WHERE experiment_id = ?1 AND first_offset >="
    " (SELECT coalesce(max(first_offset), 0) FROM batches WHERE experiment_id = ?1 AND first_offset <= ?2)"
    " ORDER BY first_offset"
)
# Of events in one row: as much as a watcher is sent at a time.
_ROW_BYTES = 512 << 10
_SHORT_READ = 522  # SQLITE_IOERR_SHORT_READ, which Python has no name for


# What reading a damaged database raises: its messages may be no text, its numbers no numbers.
UNREADABLE = (sqlite3.Error, ValueError, TypeError)


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive events of one experiment, as they came.

    Attributes:
        experiment_id: a UUID in lower case.
        offset: position of the first event.
        count: of events.
        tensors: how many of them are statistics.
        finishes: the last one is the experiment's finish.
        payload: the events (see `collector.fold`).
    """

    experiment_id: str
    offset: int
    count: int
    tensors: int
    finishes: bool
    payload: bytes


@dataclass(frozen=True, slots=True)
class Running:
    """How far an experiment without a line has come.

    Attributes:
        committed: events on disk.
        tensors: statistics among them.
        size_bytes: of their payloads.
        finished: its finish is among them.
    """

    committed: int = 0
    tensors: int = 0
    size_bytes: int = 0
    finished: bool = False

    def with_batch(self, batch: Batch) -> "Running":
        """After that batch."""
        return Running(
            batch.offset + batch.count,
            self.tensors + batch.tensors,
            self.size_bytes + len(batch.payload),
            self.finished or batch.finishes,
        )


def joined(batches: Iterable[Batch]) -> list[Batch]:
    """The same events in fewer rows: batches of one experiment that follow each other become one, up to a size.

    A payload behind another is one message to protobuf, with the events of both.
    """
    rows: list[list[Batch]] = []
    last: dict[str, tuple[list[Batch], int]] = {}
    for batch in batches:
        row, size = last.get(batch.experiment_id, ([], _ROW_BYTES))
        size += len(batch.payload)
        if size > _ROW_BYTES:
            row, size = [], len(batch.payload)
            rows.append(row)
        row.append(batch)
        last[batch.experiment_id] = row, size
    return [row[0] if len(row) == 1 else _one(row) for row in rows]


def _one(row: Sequence[Batch]) -> Batch:
    first = row[0]
    return Batch(
        first.experiment_id,
        first.offset,
        sum(batch.count for batch in row),
        sum(batch.tensors for batch in row),
        row[-1].finishes,
        b"".join([batch.payload for batch in row]),
    )


# (first offset, count, payload).
Stored = tuple[int, int, bytes]


def check(connection: sqlite3.Connection) -> bool:
    """Look whether the database is whole.

    Returns:
        Whether it has no rows.

    Raises:
        sqlite3.DatabaseError: it is damaged (see `is_damage`), or fails.
    """
    verdict = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)
    return connection.execute(f"{_ROWS} LIMIT 1").fetchone() is None


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is wrong, not the disk or the access to it."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR) or code == _SHORT_READ


def read_running(connection: sqlite3.Connection) -> dict[str, Running]:
    """How far each experiment has come; what follows a gap is left out."""
    found: dict[str, Running] = {}
    gaps: set[str] = set()
    for experiment_id, first, count, tensors, finishes, size in connection.execute(_ROWS):
        state = found.get(experiment_id, Running())
        if first == state.committed and count > 0:
            found[experiment_id] = Running(
                first + count, state.tensors + tensors, state.size_bytes + size, state.finished or bool(finishes)
            )
        else:
            gaps.add(experiment_id)
    for experiment_id in gaps:
        committed = found.get(experiment_id, Running()).committed
        logger.warning(
            "events of experiment %s after %d are missing: its sender has to repeat them", experiment_id, committed
        )
    return found


def all_batches(connection: sqlite3.Connection) -> Iterator[tuple[str, int, int, bytes]]:
    """Every batch, those of an experiment in order: (experiment id, first offset, count, payload)."""
    yield from connection.execute(_ALL)


def remove_unreachable(connection: sqlite3.Connection) -> None:
    """Remove what follows a gap: its sender repeats it, in batches that may begin elsewhere."""
    ends: dict[str, int] = {}
    unreachable: list[tuple[int]] = []
    for row, experiment_id, first, count in connection.execute(_PLACES):
        if first == ends.get(experiment_id, 0):
            ends[experiment_id] = first + count
        else:
            unreachable.append((row,))
    if unreachable:
        connection.executemany("DELETE FROM batches WHERE id = ?", unreachable)


def read_batches(connection: sqlite3.Connection, experiment_id: str, offset: int, max_bytes: int) -> list[Stored]:
    """Stored events from the batch that holds position `offset` on, without gaps.

    Returns:
        Whole batches: the first, and more up to `max_bytes`.
    """
    found: list[Stored] = []
    wanted, size = offset, 0
    cursor = connection.execute(_FROM, (experiment_id, offset))
    for first, count, payload in cursor:
        size += len(payload)
        if first > wanted or (found and size > max_bytes):
            break
        if first + count > wanted:
            found.append((first, count, payload))
            wanted = first + count
    cursor.close()
    return found


__all__ = [
    "DELETE",
    "INSERT",
    "SCHEMA",
    "UNREADABLE",
    "VERSION",
    "Batch",
    "Running",
    "Stored",
    "all_batches",
    "check",
    "is_damage",
    "joined",
    "read_batches",
    "read_running",
    "remove_unreachable",
]
