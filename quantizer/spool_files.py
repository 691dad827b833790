"""The spool's file on disk: opened, found to be damaged, set aside.

Several processes may open it, and find it damaged, at the same moment: it is renamed under a lock, by one of them.
"""

import errno
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from quantizer.errors import SpoolError
from quantizer.spool_tables import DamagedTablesError, NewerFormatError, SpoolTables

FILE_NAME = "spool.sqlite"
_ATTEMPTS = 20
_DISK_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG})
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_UNWRITABLE = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM})


def is_disk_trouble(error: BaseException) -> bool:
    """Whether an error, or what caused it, is a disk that is full or failing rather than a place that is wrong."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _DISK_ERRNOS:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def open_tables(directory: Path, on_trouble: Callable[[str], None]) -> SpoolTables:
    """The tables in a directory, which is made; a damaged file is set aside, and a new one begun.

    Raises:
        SpoolError: the directory cannot be written, or a newer version wrote the file.
        OSError, sqlite3.Error: the disk does not take it now.
    """
    path = directory / FILE_NAME
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(directory))
        for _ in range(_ATTEMPTS):
            try:
                return _open(path)
            except DamagedTablesError as error:
                _set_aside(path, on_trouble, str(error))
            except sqlite3.DatabaseError as error:
                if _code(error) in _DAMAGED:
                    _set_aside(path, on_trouble, str(error))
                elif _code(error) == sqlite3.SQLITE_BUSY:
                    time.sleep(0.05)  # Another process makes the file at this moment.
                else:
                    raise
    except NewerFormatError as error:
        raise SpoolError(
            f"the spool {path} was written by a newer version ({error}): use that version, or another --log_dir"
        ) from error
    except OSError as error:
        if is_disk_trouble(error):
            raise
        raise SpoolError(_cannot_write(directory, error.strerror or str(error))) from error
    except sqlite3.Error as error:
        if _code(error) not in _UNWRITABLE:
            raise
        raise SpoolError(_cannot_write(directory, str(error))) from error
    raise SpoolError(f"the spool {path} is damaged and cannot be replaced: move {directory} away")


def file_of(directory: Path) -> int:
    """Which file is the spool at this moment (its inode); 0: none."""
    try:
        return (directory / FILE_NAME).stat().st_ino
    except OSError:
        return 0


def _open(path: Path) -> SpoolTables:
    connection = sqlite3.connect(path, check_same_thread=False)
    try:
        return SpoolTables(connection)
    except BaseException:
        connection.close()
        raise


def _set_aside(path: Path, on_trouble: Callable[[str], None], reason: str) -> None:
    with _alone(path.parent):
        try:
            with closing(_open(path)):
                return  # Another process has replaced it since.
        except (sqlite3.DatabaseError, DamagedTablesError):
            pass
        aside = path.with_name(f"{path.name}.damaged-{time.time_ns() // 1_000_000}")
        for suffix in ("", "-wal", "-shm"):
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
    on_trouble(f"the spool {path} is damaged ({reason}): it is kept as {aside.name}, and a new one is begun")


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory / "spool.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _cannot_write(directory: Path, reason: str) -> str:
    return f"cannot write the spool in {directory} ({reason}): give --log_dir a directory that can be written"


__all__ = ["FILE_NAME", "file_of", "is_disk_trouble", "open_tables"]
