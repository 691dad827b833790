"""Opening the index of a log: the one beside it where it still agrees, else a new one.

An index agrees with a file that has the same inode, is at least as long as what was indexed, was not written to since
where it is no longer, begins as it began, and has at the end of what was indexed what stood there.
"""

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path

import google_crc32c

from collector.index import Entry, LogMark
from collector.index_database import remove_database
from collector.index_sqlite import SqliteIndex
from collector.logfile import LogFile
from collector.names import INDEX_NAME
from collector.records import Record

logger = logging.getLogger(__name__)

_HEAD_BYTES, _TAIL_BYTES = 64 << 10, 4 << 10
# Who may only read makes no file for a log that is read faster than a database is opened.
_SMALL_BYTES = 4 << 20


def open_index(log: LogFile, read_record: Callable[[Entry], Record], *, read_only: bool) -> SqliteIndex:
    """The index of a log, of its lines so far or fewer.

    Args:
        log: open.
        read_record: the full record of an entry.
        read_only: the directory is left as it is, unless the log is large.
    """
    path = log.path.with_name(INDEX_NAME)
    if read_only and log.committed <= _SMALL_BYTES:
        return SqliteIndex(None, read_record)
    for last in (False, True):
        try:
            index = SqliteIndex(path, read_record)
            if index.fresh or agrees(index, log):
                return index
            index.close()
            logger.info("%s is not of this log any more: made anew", path)
        except (sqlite3.DatabaseError, OSError, ValueError, KeyError, TypeError) as error:
            if last or not _is_damage(error):
                return _private(path, error, read_record, quiet=read_only)
            logger.info("%s cannot be used (%s): made anew", path, error)
        try:
            remove_database(path)
        except OSError as error:
            return _private(path, error, read_record, quiet=read_only)
    return _private(path, None, read_record, quiet=read_only)


def _private(
    path: Path, error: Exception | None, read_record: Callable[[Entry], Record], *, quiet: bool
) -> SqliteIndex:
    level = logging.INFO if quiet else logging.WARNING
    logger.log(
        level, "%s cannot be kept (%s): the log is indexed anew at every start", path, error or "it never agrees"
    )
    return SqliteIndex(None, read_record)


def _is_damage(error: Exception) -> bool:
    """Whether the file is wrong, rather than the access to it."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is None or code & 0xFF in (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_IOERR,
    )


def agrees(index: SqliteIndex, log: LogFile) -> bool:
    """Whether an index is of the beginning of a log, or of all of it."""
    indexed, mark = index.indexed(), index.log_mark()
    if mark is None:
        return indexed == 0
    if indexed > log.committed:
        return False
    now = mark_of(log, indexed, (mark.head[0], mark.tail[0]))
    unchanged = indexed < log.size() or now.mtime_ns == mark.mtime_ns
    return unchanged and (now.device, now.inode, now.head, now.tail) == (
        mark.device,
        mark.inode,
        mark.head,
        mark.tail,
    )


def mark_of(log: LogFile, end: int, lengths: tuple[int, int] = (_HEAD_BYTES, _TAIL_BYTES)) -> LogMark:
    """The mark of a log up to some place."""
    status = log.status()
    head, tail = min(lengths[0], end), min(lengths[1], end)
    return LogMark(
        status.st_dev,
        status.st_ino,
        status.st_mtime_ns,
        (head, _checksum(log, 0, head)),
        (tail, _checksum(log, end - tail, tail)),
    )


def _checksum(log: LogFile, start: int, length: int) -> int:
    return int(google_crc32c.value(log.read(start, length)))


__all__ = ["agrees", "mark_of", "open_index"]
