"""An open index: its database, asked by everything that reads."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from collector.errors import StoreUnavailableError
from collector.index_cut import Read
from collector.index_database import Database
from collector.index_names import Names
from collector.index_schema import INDEXES, TABLES, VERSION, statements
from collector.index_tracked import ReadRecord, Tracked

_UNWRITABLE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)


class IndexBase:
    """The database of an index, made or checked.

    Args:
        path: of the file; None for a private one.
        read: bytes of the log, by offset and length.
        read_record: the full record of an entry, for statistics.
        folder: that the file is in, removed with it.

    Attributes:
        unwritable: its file could not be written.
        fresh: it was made just now, and knows of no line.
        names: those that were met in this process.

    Raises:
        sqlite3.Error: it cannot be used.
    """

    def __init__(
        self, path: Path | None, read: Read, read_record: ReadRecord, folder: TemporaryDirectory[str] | None = None
    ) -> None:
        self._read = read
        self._folder = folder
        self.damaged = False
        self.unwritable = False
        self._tracked = Tracked(read, read_record)
        self._database = Database(path, self._tracked.register)
        self._tracked.use(self._database)
        self.names = Names()
        try:
            with self._database.write() as connection:
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                self.fresh = version == 0
                if self.fresh and connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                    raise sqlite3.DatabaseError("not an index")
                if self.fresh:
                    for statement in statements(TABLES + INDEXES):
                        connection.execute(statement)
                elif version != VERSION:
                    raise sqlite3.DatabaseError("an index of another version")
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        """Close the database."""
        self._database.close()
        if self._folder is not None:
            self._folder.cleanup()

    def unusable(self) -> bool:
        """Whether it has to be made anew: its file is damaged, was deleted or replaced."""
        return self.damaged or self._database.gone()

    @contextmanager
    def reading(self, *, whole: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection; a damaged index is told of, and made anew by the store."""
        try:
            with self._database.read(whole=whole) as connection:
                yield connection
        except sqlite3.Error as error:
            raise self._failed(error) from None

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction; fails as `reading` does."""
        try:
            with self._database.write() as connection:
                yield connection
        except sqlite3.Error as error:
            raise self._failed(error) from None

    def _failed(self, error: sqlite3.Error) -> StoreUnavailableError:
        self.damaged = True
        self.unwritable = getattr(error, "sqlite_errorcode", 0) & 0xFF in _UNWRITABLE
        return StoreUnavailableError(f"the index failed ({error}): it is made anew, try again")


__all__ = ["IndexBase", "ReadRecord"]
