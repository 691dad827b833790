"""Opening the index of a log: the one beside it where it still agrees, else a new one, elsewhere where it has to be."""

import logging
import sqlite3
import tempfile
from pathlib import Path

from collector.errors import StoreUnavailableError
from collector.index_base import ReadRecord
from collector.index_bulk import build_index, remove_unfinished
from collector.index_database import remove_database
from collector.index_mark import agrees
from collector.index_sqlite import SqliteIndex
from collector.logfile import LogFile
from collector.names import INDEX_NAME

logger = logging.getLogger(__name__)

# Who may only read makes no file for a log that is read faster than a database is opened.
_SMALL_BYTES = 4 << 20
# From this size on an index is made in one go, rather than in steps that each are there for good.
_LONG_BYTES = 4 << 20


def open_index(log: LogFile, read_record: ReadRecord, *, read_only: bool, elsewhere: bool = False) -> SqliteIndex:
    """The index of a log, of its lines so far or fewer.

    Args:
        log: open.
        read_record: the full record of an entry.
        read_only: the directory is left as it is, unless the log is large.
        elsewhere: not beside the log, which was tried.
    """
    path = log.path.with_name(INDEX_NAME)
    if read_only and log.committed <= _SMALL_BYTES:
        return SqliteIndex(None, log.read, read_record)
    if elsewhere:
        return _private(path, "its file cannot be written", log, read_record)
    for last in (False, True):
        index: SqliteIndex | None = None
        try:
            index = _made_or_opened(path, log, read_record)
            if index.fresh or agrees(index.indexed(), index.log_mark(), log):
                return index
            index.close()
            logger.info("%s is not of this log any more: made anew", path)
        except (sqlite3.DatabaseError, StoreUnavailableError, OSError, ValueError, KeyError, TypeError) as error:
            unwritable = index is not None and index.unwritable
            if index is not None:
                index.close()
            if last or unwritable or not _is_damage(error):
                return _private(path, error, log, read_record)
            logger.info("%s cannot be used (%s): made anew", path, error)
        try:
            remove_database(path)
        except OSError as error:
            return _private(path, error, log, read_record)
    return _private(path, "it never agrees", log, read_record)


def _made_or_opened(path: Path, log: LogFile, read_record: ReadRecord) -> SqliteIndex:
    if log.committed >= _LONG_BYTES and not path.exists():
        remove_unfinished(path)
        build_index(path, log)
    return SqliteIndex(path, log.read, read_record)


def _private(path: Path, error: object, log: LogFile, read_record: ReadRecord) -> SqliteIndex:
    """An index that ends with this process: in memory, or among temporary files where the log is long."""
    if log.committed < _LONG_BYTES:
        logger.warning("%s cannot be kept (%s): the log is indexed anew at every start", path, error)
        return SqliteIndex(None, log.read, read_record)
    folder = tempfile.TemporaryDirectory(prefix="collector-")
    try:
        there = Path(folder.name, path.name)
        logger.warning(
            "%s cannot be kept (%s): the log is indexed anew at every start, in %s (TMPDIR chooses another place)",
            path,
            error,
            folder.name,
        )
        return SqliteIndex(_built(there, log), log.read, read_record, folder)
    except (sqlite3.Error, OSError) as failure:
        folder.cleanup()
        logger.warning(
            "%s cannot be used (%s): the index is in memory, and takes some hundred bytes a line", there, failure
        )
        return SqliteIndex(None, log.read, read_record)


def _built(path: Path, log: LogFile) -> Path:
    build_index(path, log)
    return path


def _is_damage(error: Exception) -> bool:
    """Whether the file is wrong, rather than the access to it."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return not isinstance(error, OSError)
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_IOERR)


__all__ = ["open_index"]
