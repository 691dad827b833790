"""The events of running experiments, on disk until each experiment has its line.

SQLite with a write-ahead log and synchronous=FULL: a committed transaction survives kill -9 and power loss. The
database is made with the first event. One that is damaged is set aside, with a warning: an experiment that was running
is lost then, nothing that has its line is.
"""

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from collector import batches
from collector.batches import Batch, Running, Stored
from collector.errors import RetryError, StoreAccessError, StoreFullError, StoreUnavailableError
from collector.files import name_aside, sync_directory
from collector.observer import SILENT, StoreObserver

logger = logging.getLogger(__name__)

# A database larger than this and empty is made small again at open.
_WORTH_SHRINKING = 16 << 20
_READ_BYTES = 4 << 20


class Inflight:
    """The database. Writing is for one thread, reading for any.

    Args:
        path: of the database.
        observer: told of commits, and of damage.

    Raises:
        StoreAccessError: it cannot be opened.
    """

    def __init__(self, path: Path, observer: StoreObserver = SILENT) -> None:
        self.path = path
        self._observer = observer
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._read_lock = threading.Lock()
        if not path.exists():
            return
        try:
            empty = batches.check(self._connection())
            if empty and path.stat().st_size > _WORTH_SHRINKING:
                self._connection().execute("VACUUM")
            # Tells of gaps.
            batches.read_running(self._connection())
            batches.remove_unreachable(self._connection())
        except batches.UNREADABLE as error:
            self.close()
            if isinstance(error, sqlite3.Error) and not batches.is_damage(error):
                raise StoreAccessError(f"{path} cannot be opened: {error}") from None
            self._set_aside(error)

    def _connection(self) -> sqlite3.Connection:
        if self._writer is None:
            connection = self._connect()
            try:
                self._prepare(connection)
                self._reader = self._connect()
            except BaseException:
                connection.close()
                raise
            self._writer = connection
        return self._writer

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=10)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA page_size=32768")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA wal_autocheckpoint=1000")
        # A whole transaction: pages that are written before its end are written twice.
        connection.execute("PRAGMA cache_size=-32768")
        connection.execute("PRAGMA journal_size_limit=67108864")
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version > batches.VERSION:
            raise StoreAccessError(f"{self.path} has version {version}, from a newer collector: upgrade this one")
        if version == 0:
            # A new one, or one whose making was cut short.
            connection.execute(batches.SCHEMA)
            connection.execute(f"PRAGMA user_version={batches.VERSION}")
            sync_directory(self.path.parent)

    def _set_aside(self, error: Exception) -> None:
        target = name_aside(self.path, "corrupt")
        try:
            size = self.path.stat().st_size
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{self.path}{suffix}").rename(f"{target}{suffix}")
            sync_directory(self.path.parent)
        except OSError as failure:
            raise StoreAccessError(f"{self.path} is damaged and cannot be moved: {failure.strerror}") from None
        self._observer.set_aside(self.path.name, size)
        logger.warning(
            "%s is damaged (%s): moved to %s; experiments that were running have to be sent again",
            self.path,
            " ".join(str(error).split()),
            target.name,
        )

    def close(self) -> None:
        """Close the database; what was committed is on disk."""
        with self._read_lock:
            for connection in (self._reader, self._writer):
                if connection is not None:
                    connection.close()
            self._reader = self._writer = None

    @contextmanager
    def at_one_moment(self) -> Iterator[sqlite3.Connection | None]:
        """A connection of its own that sees no change; None where there is no database.

        Raises:
            sqlite3.Error: it cannot be made.
        """
        if self._writer is None:
            yield None
            return
        with closing(self._connect()) as connection:
            connection.execute("BEGIN")
            yield connection

    def running(self) -> dict[str, Running]:
        """How far each experiment has come. For the writing thread.

        Raises:
            StoreAccessError: the database fails.
        """
        try:
            return {} if self._writer is None else batches.read_running(self._writer)
        except sqlite3.Error as error:
            raise StoreAccessError(f"{self.path} cannot be read: {error}") from None

    def add(self, new: Sequence[Batch]) -> None:
        """Store batches in one transaction; on disk when this returns.

        Raises:
            RetryError: nothing of them was stored.
        """
        rows = [(b.experiment_id, b.offset, b.count, b.tensors, b.finishes, b.payload) for b in new]
        self._transact("storing events", batches.INSERT, rows)

    def remove(self, experiment_ids: Iterable[str]) -> None:
        """Remove all events of experiments that have their line.

        Raises:
            RetryError: none was removed.
        """
        self._transact("removing events", batches.DELETE, [(name,) for name in experiment_ids])

    def _transact(self, doing: str, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        try:
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.executemany(statement, rows)
                start = time.perf_counter()
                connection.execute("COMMIT")
                self._observer.synced(self.path.name, time.perf_counter() - start)
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

    def read(self, experiment_id: str, offset: int, *, max_bytes: int) -> list[Stored]:
        """Stored events: see `collector.batches.read_batches`.

        Raises:
            StoreUnavailableError: the database fails.
        """
        with self._read_lock:
            if self._reader is None:
                return []
            try:
                return batches.read_batches(self._reader, experiment_id, offset, max_bytes)
            except sqlite3.Error as error:
                raise StoreUnavailableError(f"reading events from {self.path}: {error}") from None

    def read_all(self, experiment_id: str) -> Iterator[tuple[bytes, int]]:
        """All stored events of one experiment: (payload, count) in order.

        Raises:
            StoreUnavailableError: the database fails.
        """
        offset = 0
        while found := self.read(experiment_id, offset, max_bytes=_READ_BYTES):
            for first, count, payload in found:
                yield payload, count
                offset = first + count


__all__ = ["Inflight"]
