"""The events of running experiments for one who may only read: from a private copy, renewed when the file changes.

A database with a write-ahead log cannot be opened in place without writing beside it. The copy is of a state between
two transactions: it is taken again where a checkpoint came between its parts, and what the log holds beyond its last
whole transaction is ignored by SQLite.
"""

import contextlib
import logging
import shutil
import sqlite3
import tempfile
import threading
import time
from pathlib import Path

from collector import batches
from collector.batches import Running, Stored
from collector.errors import StoreUnavailableError

logger = logging.getLogger(__name__)

# Copies are taken no more often than this, and only where the file has changed.
_RENEW_S = 0.5
_ATTEMPTS = 5
_WAL_HEADER_BYTES = 32


class Snapshot:
    """A view of a database that another process may be writing.

    Args:
        path: of the database; it may be missing, and appear later.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wal = Path(f"{path}-wal")
        self._lock = threading.Lock()
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._connection: sqlite3.Connection | None = None
        self._seen: object = None
        self._looked = float("-inf")
        self._running: dict[str, Running] = {}
        self._closed = False

    def running(self) -> dict[str, Running]:
        """How far each experiment has come."""
        with self._lock:
            self._renew()
            return dict(self._running)

    def read(self, experiment_id: str, offset: int, *, max_bytes: int, fresh: bool) -> list[Stored]:
        """Stored events: see `collector.batches.read_batches`.

        Args:
            fresh: as of now, not as of a moment ago.

        Raises:
            StoreUnavailableError: the copy fails.
        """
        with self._lock:
            self._renew(fresh=fresh)
            if self._connection is None:
                return []
            try:
                return batches.read_batches(self._connection, experiment_id, offset, max_bytes)
            except sqlite3.Error as error:
                raise StoreUnavailableError(f"reading events from {self._path}: {error}") from None

    def close(self) -> None:
        """Remove the copy."""
        with self._lock:
            self._closed = True
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None
        self._running = {}

    def _renew(self, *, fresh: bool = False) -> None:
        now = time.monotonic()
        if self._closed or (now < self._looked + _RENEW_S and not fresh):
            return
        self._looked = now
        seen = (_state(self._path), _state(self._wal))
        if seen == self._seen:
            return
        self._seen = seen
        self._drop()
        if seen[0] is None:
            return
        try:
            self._copy()
        except (OSError, *batches.UNREADABLE) as error:
            self._drop()
            logger.warning("%s cannot be read (%s): running experiments are not shown", self._path, error)

    def _copy(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="collector-")
        copy = Path(self._directory.name) / self._path.name
        for attempt in range(_ATTEMPTS):
            before = (_state(self._path), self._wal_header())
            shutil.copyfile(self._path, copy)
            with contextlib.suppress(FileNotFoundError):
                Path(f"{copy}-wal").unlink()
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(self._wal, f"{copy}-wal")
            if before == (_state(self._path), self._wal_header()) or attempt == _ATTEMPTS - 1:
                break
        self._connection = sqlite3.connect(copy, isolation_level=None, check_same_thread=False)
        if copy.stat().st_size:
            batches.check(self._connection)
            self._running = batches.read_running(self._connection)

    def _wal_header(self) -> bytes:
        """What changes when the write-ahead log begins anew."""
        try:
            with self._wal.open("rb") as file:
                return file.read(_WAL_HEADER_BYTES)
        except FileNotFoundError:
            return b""


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


__all__ = ["Snapshot"]
