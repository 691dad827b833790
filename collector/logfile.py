"""The log's file: whole lines are appended and made durable, and nothing before its end is ever changed.

`committed` is where the last whole line ends; what stands behind it belongs to nobody. The newline means committed.
"""

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import google_crc32c

from collector.errors import RetryError, StoreAccessError, StoreUnavailableError
from collector.files import FileLayer, name_aside, storage_error, sync_directory
from collector.observer import SILENT, StoreObserver

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20


class LogFile:
    """One log, open.

    Args:
        path: of the file; made, with its directory's entry durable, where it is to be written and not there.
        read_only: nothing is made, repaired or appended; the file may be missing.
        layer: the operating system's calls.
        lazy: a file that is not there is made when it is settled, not before.
        observer: told of syncs, and of a torn end.

    Raises:
        StoreAccessError: it cannot be opened.
        PermissionError: it cannot be written.
    """

    def __init__(
        self,
        path: Path,
        *,
        read_only: bool,
        layer: FileLayer | None = None,
        lazy: bool = False,
        observer: StoreObserver = SILENT,
    ) -> None:
        self.path = path
        self._observer = observer
        self._lazy = lazy
        self.committed = 0
        self._read_only = read_only
        self._layer = layer or FileLayer()
        self._fd = -1
        # The end of the file may be half a line of our own: cut it before anything else is done.
        self._dirty = False
        # Place and checksum of the line appended last, to be found again after a failed sync.
        self._last: tuple[int, int, int] | None = None
        self._open()
        if self._fd >= 0:
            self._committed_from(0)

    def _open(self) -> None:
        exists = self.path.exists()
        if exists and not self.path.is_file():
            raise StoreAccessError(f"the log {self.path} is not a regular file")
        if not exists and (self._read_only or self._lazy):
            return
        flags = os.O_RDONLY if self._read_only else os.O_RDWR | os.O_APPEND | os.O_CREAT
        try:
            self._fd = os.open(self.path, flags, 0o644)
            if not exists:
                os.fsync(self._fd)
                sync_directory(self.path.parent)
        except PermissionError:
            raise
        except OSError as error:
            raise StoreAccessError(f"the log {self.path} cannot be opened: {error.strerror}") from None

    @property
    def is_open(self) -> bool:
        """Whether there is a file."""
        return self._fd >= 0

    def close(self) -> None:
        """Close the file; nothing waits to be written."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def size(self) -> int:
        """Bytes in the file now, whole lines or not."""
        return os.fstat(self._fd).st_size if self._fd >= 0 else 0

    def status(self) -> os.stat_result:
        """What the operating system says of the file."""
        return os.fstat(self._fd)

    def has_more(self) -> bool:
        """Whether there are bytes behind the last line that is known."""
        return self.size() > self.committed if self._fd >= 0 else self.path.exists()

    def read(self, offset: int, length: int) -> bytes:
        """Bytes as they stand in the file; fewer where it has become shorter."""
        return b"".join(self.chunks(offset, offset + length))

    def chunks(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` to `end`, a megabyte at a time."""
        while start < end:
            chunk = os.pread(self._fd, min(_CHUNK_BYTES, end - start), start)
            if not chunk:
                return
            yield chunk
            start += len(chunk)

    def refresh(self) -> None:
        """Take in whole lines that another program has appended (the earlier logger knows of no lock)."""
        if self._fd < 0:
            self._open()
        if self._fd >= 0 and self.size() > self.committed:
            self._committed_from(self.committed)

    def settle(self) -> None:
        """Make the file end at a newline: take in whole lines of others, set half a line aside.

        Raises:
            RetryError: it cannot be done now.
        """
        if self._fd < 0:
            self._lazy = False
            try:
                self._open()
            except (StoreAccessError, PermissionError) as error:
                raise StoreUnavailableError(str(error)) from None
        try:
            self._require_same_file()
            if self._dirty:
                self._cut_own_tail()
            self.refresh()
            size = self.size()
            if size < self.committed:
                raise StoreUnavailableError(
                    f"the log {self.path} became shorter while it was open ({size} bytes, {self.committed} were "
                    "committed): restart the collector"
                )
            if size > self.committed:
                self._set_aside(size)
        except OSError as error:
            raise storage_error(error, f"the end of {self.path} cannot be repaired") from None

    def append(self, line: bytes) -> int:
        """Append one line, durably. The file has been settled.

        Returns:
            Where it stands.

        Raises:
            RetryError: it could not be written or synced; the file is as before.
        """
        start = self.committed
        try:
            written = self._write(line)
        except OSError as error:
            self._cut_back()
            raise storage_error(error, f"appending to {self.path}") from None
        if written != len(line):
            self._cut_back()
            raise StoreUnavailableError(f"appending to {self.path}: {written} of {len(line)} bytes were written")
        try:
            self._sync()
        except OSError as error:
            logger.error("syncing %s failed (%s): reopening it", self.path, error.strerror)
            self._reopen()
            raise storage_error(error, f"syncing {self.path}") from None
        self._last = (start, len(line), google_crc32c.value(line))
        self.committed = start + len(line)
        return start

    def _write(self, line: bytes) -> int:
        while True:
            try:
                return self._layer.write(self._fd, line)
            except InterruptedError:
                continue

    def _sync(self) -> None:
        start = time.perf_counter()
        while True:
            try:
                self._layer.fdatasync(self._fd)
            except InterruptedError:
                continue
            self._observer.synced(self.path.name, time.perf_counter() - start)
            return

    def _cut_back(self) -> None:
        try:
            self._layer.ftruncate(self._fd, self.committed)
        except OSError:
            self._dirty = True

    def _cut_own_tail(self) -> None:
        self._layer.ftruncate(self._fd, self.committed)
        self._sync()
        self._dirty = False

    def _reopen(self) -> None:
        """After a failed sync nothing in memory is believed: open anew, cut, sync, look at the last line on disk."""
        self._dirty = True
        try:
            fresh = os.open(self.path, os.O_RDWR | os.O_APPEND)
            try:
                # Readers in other threads keep the number that they have.
                os.dup2(fresh, self._fd, inheritable=False)
            finally:
                os.close(fresh)
            self._cut_own_tail()
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
            self._verify_last()
        except (OSError, RetryError) as error:
            logger.error("reopening %s failed: %s", self.path, error)
            self._dirty = True

    def _verify_last(self) -> None:
        if self._last is None:
            return
        offset, length, checksum = self._last
        if google_crc32c.value(self.read(offset, length)) != checksum:
            raise StoreUnavailableError(f"the line at byte {offset} of {self.path} is not as it was written")

    def _require_same_file(self) -> None:
        here = os.fstat(self._fd)
        try:
            there = self.path.stat()
        except FileNotFoundError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
            raise StoreUnavailableError(
                f"the log {self.path} was removed or replaced while it was open: put it back, or restart the collector"
            )

    def _committed_from(self, start: int) -> None:
        """Find the last newline between `start` and the end of the file."""
        end = self.size()
        while end > start:
            begin = max(start, end - _CHUNK_BYTES)
            place = self.read(begin, end - begin).rfind(b"\n")
            if place >= 0:
                self.committed = begin + place + 1
                return
            end = begin

    def _set_aside(self, size: int) -> None:
        """Copy what stands behind the last newline to a file of its own, and cut it off."""
        torn = name_aside(self.path, "torn")
        with torn.open("xb") as copy:
            for chunk in self.chunks(self.committed, size):
                copy.write(chunk)
            copy.flush()
            os.fsync(copy.fileno())
        sync_directory(self.path.parent)
        self._cut_own_tail()
        self._observer.set_aside(self.path.name, size - self.committed)
        logger.warning(
            "%s ended in %d bytes without a newline, an append that was never completed: kept in %s and cut off",
            self.path,
            size - self.committed,
            torn.name,
        )


__all__ = ["LogFile"]
