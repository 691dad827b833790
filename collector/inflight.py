"""The events of running experiments, on disk until each experiment has its line.

SQLite with a write-ahead log and synchronous=FULL: a committed transaction survives kill -9 and power loss. The
database is made with the first event. One that is damaged is set aside, with a warning: an experiment that was running
is lost then, nothing that has its line is.
"""

import contextlib
import logging
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from collector.errors import RetryError, StoreAccessError, StoreFullError, StoreUnavailableError
from collector.files import sync_directory

logger = logging.getLogger(__name__)

_VERSION = 1
_SCHEMA = """
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
_COLUMNS = "experiment_id, first_offset, count, tensors, finishes, payload"
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# A database larger than this and empty is made small again at open.
_WORTH_SHRINKING = 16 << 20


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


class Inflight:
    """The database. Writing is for one thread, reading for any.

    Args:
        path: of the database.
        read_only: a private copy is read, and nothing beside it is touched.

    Raises:
        StoreAccessError: it cannot be opened.
    """

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self.path = path
        self._read_only = read_only
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._read_lock = threading.Lock()
        self._private: tempfile.TemporaryDirectory[str] | None = None
        if path.exists():
            self._open_existing()

    def _open_existing(self) -> None:
        try:
            self._connect(self._private_copy() if self._read_only else self.path)
            self._check()
        except sqlite3.DatabaseError as error:
            self.close()
            if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode not in _DAMAGE:
                raise StoreAccessError(f"{self.path} cannot be opened: {error}") from None
            if self._read_only:
                logger.warning("%s cannot be read (%s): running experiments are not shown", self.path, error)
            else:
                self._set_aside(error)
        except OSError as error:
            self.close()
            raise StoreAccessError(f"{self.path} cannot be read: {error.strerror}") from None

    def _private_copy(self) -> Path:
        """A copy to read: a database that is not ours to write cannot be opened in place with its write-ahead log."""
        self._private = tempfile.TemporaryDirectory(prefix="collector-")
        copy = Path(self._private.name) / self.path.name
        shutil.copyfile(self.path, copy)
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(f"{self.path}-wal", f"{copy}-wal")
        return copy

    def _connect(self, path: Path) -> None:
        new = not path.exists() or path.stat().st_size == 0
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        self._writer = connection
        if new:
            connection.execute("PRAGMA page_size=16384")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA wal_autocheckpoint=2000")
        connection.execute("PRAGMA journal_size_limit=67108864")
        if connection.execute("PRAGMA user_version").fetchone() == (0,):
            # A new one, or one whose making was cut short.
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA user_version={_VERSION}")
            sync_directory(path.parent)
        self._reader = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)

    def _check(self) -> None:
        connection = self._connection()
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version > _VERSION:
            raise StoreAccessError(f"{self.path} has version {version}, from a newer collector: upgrade this one")
        verdict = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        try:
            empty = connection.execute(f"SELECT {_COLUMNS} FROM batches LIMIT 1").fetchone() is None  # noqa: S608
        except sqlite3.OperationalError as error:
            raise sqlite3.DatabaseError(str(error)) from None
        if empty and not self._read_only and self.path.stat().st_size > _WORTH_SHRINKING:
            connection.execute("VACUUM")

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        target, count = self.path.with_name(f"{self.path.name}.corrupt-{stamp}"), 1
        while target.exists():
            target, count = self.path.with_name(f"{self.path.name}.corrupt-{stamp}-{count}"), count + 1
        try:
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{self.path}{suffix}").rename(f"{target}{suffix}")
            sync_directory(self.path.parent)
        except OSError as failure:
            raise StoreAccessError(f"{self.path} is damaged and cannot be moved: {failure.strerror}") from None
        logger.warning(
            "%s is damaged (%s): moved to %s; experiments that were running have to be sent again",
            self.path,
            error,
            target.name,
        )

    def _connection(self) -> sqlite3.Connection:
        if self._writer is None:
            self._connect(self.path)
        assert self._writer is not None  # noqa: S101 - for mypy: just connected
        return self._writer

    def close(self) -> None:
        """Close the database; what was committed is on disk."""
        with self._read_lock:
            for connection in (self._reader, self._writer):
                if connection is not None:
                    connection.close()
            self._reader = self._writer = None
        if self._private is not None:
            self._private.cleanup()
            self._private = None

    def running(self) -> dict[str, Running]:
        """How far each experiment has come, in the order of their beginning; what follows a gap is left out."""
        found: dict[str, Running] = {}
        if self._writer is None:
            return found
        rows = self._writer.execute(
            "SELECT experiment_id, first_offset, count, tensors, finishes, length(payload) FROM batches ORDER BY id"
        )
        for experiment_id, first, count, tensors, finishes, size in rows:
            state = found.get(experiment_id, Running())
            if first == state.committed and count > 0:
                found[experiment_id] = Running(
                    first + count, state.tensors + tensors, state.size_bytes + size, state.finished or bool(finishes)
                )
            else:
                logger.warning("%s: events of %s from %d are missing", self.path, experiment_id, state.committed)
        return found

    def add(self, batches: Sequence[Batch]) -> None:
        """Store batches in one transaction; on disk when this returns.

        Raises:
            RetryError: nothing of them was stored.
        """
        self._transact(
            "storing events",
            f"INSERT OR REPLACE INTO batches ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608
            [(b.experiment_id, b.offset, b.count, b.tensors, b.finishes, b.payload) for b in batches],
        )

    def remove(self, experiment_ids: Iterable[str]) -> None:
        """Remove all events of experiments that have their line.

        Raises:
            RetryError: none was removed.
        """
        self._transact(
            "removing events", "DELETE FROM batches WHERE experiment_id = ?", [(name,) for name in experiment_ids]
        )

    def _transact(self, doing: str, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        try:
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.executemany(statement, rows)
                connection.execute("COMMIT")
            except sqlite3.Error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except (sqlite3.Error, OSError) as error:
            raise self._retry_error(error, doing) from None

    def _retry_error(self, error: Exception, doing: str) -> RetryError:
        message = f"{doing} in {self.path}: {error}; nothing acknowledged is lost"
        full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        return StoreFullError(message) if full else StoreUnavailableError(message)

    def batches(self, experiment_id: str) -> Iterator[tuple[bytes, int]]:
        """All stored events of one experiment: (payload, count) in order."""
        offset = 0
        while rows := self.read(experiment_id, offset, max_bytes=4 << 20):
            for first, count, payload in rows:
                yield payload, count
                offset = first + count

    def read(self, experiment_id: str, offset: int, *, max_bytes: int) -> list[tuple[int, int, bytes]]:
        """Stored events from the batch that holds position `offset` on, without gaps.

        Returns:
            (first offset, count, payload) of whole batches: the first, and more up to `max_bytes`.

        Raises:
            StoreUnavailableError: the database fails.
        """
        found: list[tuple[int, int, bytes]] = []
        wanted, size = offset, 0
        with self._read_lock:
            if self._reader is None:
                return []
            try:
                cursor = self._reader.execute(
                    "SELECT first_offset, count, payload FROM batches WHERE experiment_id = ?"
                    " AND first_offset >= (SELECT coalesce(max(first_offset), 0) FROM batches"
                    " WHERE experiment_id = ? AND first_offset <= ?) ORDER BY first_offset",
                    (experiment_id, experiment_id, offset),
                )
                for first, count, payload in cursor:
                    size += len(payload)
                    if first > wanted or (found and size > max_bytes):
                        break
                    if first + count > wanted:
                        found.append((first, count, payload))
                        wanted = first + count
                cursor.close()
            except sqlite3.Error as error:
                raise StoreUnavailableError(f"reading events from {self.path}: {error}") from None
        return found


__all__ = ["Batch", "Inflight", "Running"]
