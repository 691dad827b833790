"""What the store asks of the operating system, as a value: tests put failing disks in its place."""

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from collector.errors import RetryError, StoreFullError, StoreUnavailableError

_fdatasync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


@dataclass(frozen=True, slots=True)
class FileLayer:
    """The calls that can fail under a store.

    Attributes:
        write: os.write.
        fdatasync: os.fdatasync (os.fsync where there is none).
        ftruncate: os.ftruncate.
    """

    write: Callable[[int, bytes], int] = os.write
    fdatasync: Callable[[int], None] = _fdatasync
    ftruncate: Callable[[int, int], None] = os.ftruncate


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def name_aside(path: Path, kind: str) -> Path:
    """A free name beside a file, for what is set aside: PATH.KIND-TIME, with a number behind it where that exists."""
    stem = f"{path.name}.{kind}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    candidate, count = path.with_name(stem), 1
    while candidate.exists():
        candidate, count = path.with_name(f"{stem}-{count}"), count + 1
    return candidate


def storage_error(error: OSError, doing: str) -> RetryError:
    """The collector's error for one of the operating system's."""
    if error.errno in _FULL:
        return StoreFullError(f"{doing}: {error.strerror}; free some space, nothing acknowledged is lost")
    return StoreUnavailableError(f"{doing}: {error.strerror or error}; nothing acknowledged is lost")


__all__ = ["FileLayer", "name_aside", "storage_error", "sync_directory"]
