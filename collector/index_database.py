"""Connections to the index's database: one that writes, a few that read; or one for all, where nobody else sees it."""

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from collector import patience

# Kept open between questions; each has a cache of its own.
_MOST_READERS = 6
_CACHE_KIB = 4096
_BUSY_S = 30.0


class Database:
    """A database in a file, or a private one that ends with it.

    Args:
        path: of the file, made where it is not there; None for a private one, which SQLite keeps where it has room.
        prepare: called for every connection.

    Raises:
        sqlite3.Error: it cannot be opened.
    """

    def __init__(self, path: Path | None, prepare: Callable[[sqlite3.Connection], None]) -> None:
        self._path = path
        self._prepare = prepare
        self._lock = threading.RLock()
        self._readers: list[sqlite3.Connection] = []
        self._readers_lock = threading.Lock()
        self._closed = False
        self._writer = self._connect()
        try:
            if path is not None:
                self._writer.execute("PRAGMA journal_mode=WAL")
                self._writer.execute("PRAGMA synchronous=NORMAL")
                self._writer.execute("PRAGMA wal_autocheckpoint=1000")
                self._writer.execute("PRAGMA journal_size_limit=67108864")
            else:
                self._writer.execute("PRAGMA journal_mode=OFF")
                self._writer.execute("PRAGMA synchronous=OFF")
            self._inode = None if path is None else path.stat().st_ino
        except BaseException:
            self._writer.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            "" if self._path is None else self._path, isolation_level=None, check_same_thread=False, timeout=_BUSY_S
        )
        try:
            connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
            connection.execute("PRAGMA temp_store=MEMORY")
            connection.execute("PRAGMA cell_size_check=ON")
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction; the only one, of all processes."""
        with self._lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._writer.execute("ROLLBACK")
                raise
            self._writer.execute("COMMIT")

    def script(self, text: str) -> None:
        """Run statements that make tables."""
        with self._lock:
            self._writer.executescript(text)

    @contextmanager
    def read(self, *, whole: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection for reading; `whole`: all that is read is of one moment.

        Raises:
            TooSlowError, GoneError: the call that asks is over; see `collector.patience`.
        """
        if self._path is None:
            with self._lock, _interruptible(self._writer):
                yield self._writer
            return
        with self._readers_lock:
            connection = self._readers.pop() if self._readers else None
        connection = connection or self._connect()
        try:
            if whole:
                connection.execute("BEGIN")
            with _interruptible(connection):
                yield connection
        finally:
            if connection.in_transaction:
                connection.execute("COMMIT")
            with self._readers_lock:
                kept = not self._closed and len(self._readers) < _MOST_READERS
                if kept:
                    self._readers.append(connection)
            if not kept:
                connection.close()

    def gone(self) -> bool:
        """Whether the file was deleted or replaced."""
        if self._path is None:
            return False
        try:
            return self._path.stat().st_ino != self._inode
        except OSError:
            return True

    def close(self) -> None:
        """Close what nobody uses at the moment; the rest when it is given back."""
        with self._readers_lock:
            self._closed = True
            readers, self._readers = self._readers, []
        for connection in readers:
            connection.close()
        with self._lock:
            self._writer.close()


@contextmanager
def _interruptible(connection: sqlite3.Connection) -> Iterator[None]:
    """End a question when the call that asks it is over."""
    if not patience.bounded():
        yield
        return
    connection.set_progress_handler(patience.over, patience.SQLITE_STEPS)
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            patience.check()
        raise
    finally:
        connection.set_progress_handler(None, 0)


def remove_database(path: Path) -> None:
    """Remove a database with what belongs to it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{suffix}").unlink()


__all__ = ["Database", "remove_database"]
