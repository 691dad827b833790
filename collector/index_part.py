"""A part of a long log as tables of an index, made by a process of its own: `python -m collector.index_part`."""

import logging
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from collector.index_names import Names
from collector.index_schema import COLUMNS, TABLES, statements
from collector.logfile import LogFile
from collector.scanning import steps

logger = logging.getLogger(__name__)

# A process takes as long to start as it takes in some megabytes; so much is worth one.
_LEAST_BYTES = 8 << 20
_MOST_PARTS = 4
# Of the log, for this process, which joins the parts besides; in parts of what each other one gets.
_OWN_SHARE = 0.75
_SETTINGS = ("page_size=16384", "journal_mode=OFF", "synchronous=OFF", "cache_size=-32768", "temp_store=FILE")


def new_database(path: Path) -> sqlite3.Connection:
    """A database with the tables of an index, to be filled quickly."""
    connection = sqlite3.connect(path, isolation_level=None)
    for setting in _SETTINGS:
        connection.execute(f"PRAGMA {setting}")
    for statement in statements(TABLES):
        connection.execute(statement)
    return connection


def split(log: LogFile, end: int) -> list[int]:
    """Where the parts of a log begin, each behind a newline."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(_MOST_PARTS, cores, end // _LEAST_BYTES)
    places = [0]
    for part in range(1, count if sys.executable else 0):
        place = round(end * (_OWN_SHARE + part - 1) / (_OWN_SHARE + count - 1))
        place = _behind_newline(log, place, end)
        if places[-1] < place < end:
            places.append(place)
    return places


def _behind_newline(log: LogFile, place: int, end: int) -> int:
    for chunk in log.chunks(place, end):
        found = chunk.find(b"\n")
        if found >= 0:
            return place + found + 1
        place += len(chunk)
    return end


def fill(connection: sqlite3.Connection, log: LogFile, start: int, end: int) -> None:
    """Take in what stands between two places of a log, numbered from 0, into a new database."""
    count = corrupt = 0
    connection.execute("BEGIN")
    for step in steps(log, start, end, 0, Names()):
        step.rows.write(connection)
        count, corrupt = count + step.rows.count, corrupt + step.rows.corrupt
    connection.execute("UPDATE state SET count = ?, corrupt = ?, indexed = ?", (count, corrupt, end))
    connection.execute("COMMIT")


class Part:
    """A process that takes in a part of a log.

    Args:
        path: of the database that it makes.
        log: open here.
        start, end: of the part.
    """

    def __init__(self, path: Path, log: LogFile, start: int, end: int) -> None:
        self.path, self.start, self._end = path, start, end
        self._log = log
        command = [sys.executable, "-m", __name__, str(log.path), str(start), str(end), str(path)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
        )

    def wait(self) -> Path:
        """The database, once it is there."""
        _, errors = self._process.communicate()
        if self._process.returncode:
            said = errors.decode(errors="replace").strip().rpartition("\n")[2]
            logger.info("a process that helped to index the log failed (%s): its part is done here", said)
            self.path.unlink(missing_ok=True)
            with closing(new_database(self.path)) as connection:
                fill(connection, self._log, self.start, self._end)
        return self.path

    def stop(self) -> None:
        """End it, where it has not ended."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


def join(connection: sqlite3.Connection, path: Path) -> None:
    """Add the lines of a part behind those that are there."""
    connection.execute("ATTACH ? AS part", (str(path),))
    (first,) = connection.execute("SELECT count FROM state").fetchone()
    columns = ", ".join(COLUMNS)
    moved = columns.replace("number", "number + ?", 1)
    connection.execute("BEGIN")
    for text in (
        f"INSERT INTO lines ({columns}) SELECT {moved} FROM part.lines ORDER BY number",  # noqa: S608 - our names
        "INSERT INTO summaries SELECT number + ?, summary FROM part.summaries ORDER BY number",
        "INSERT INTO texts SELECT number + ?, text FROM part.texts ORDER BY number",
    ):
        connection.execute(text, (first,))
    index_texts(connection, first)
    connection.execute("INSERT OR IGNORE INTO paths (keys) SELECT keys FROM part.paths ORDER BY id")
    connection.execute("INSERT OR IGNORE INTO statistics (name) SELECT name FROM part.statistics ORDER BY id")
    connection.execute(
        "UPDATE state SET count = count + (SELECT count FROM part.state),"
        " corrupt = corrupt + (SELECT corrupt FROM part.state), indexed = (SELECT indexed FROM part.state)"
    )
    connection.execute("COMMIT")
    connection.execute("DETACH part")


def index_texts(connection: sqlite3.Connection, first: int) -> None:
    """Fill the table `words` from a number on."""
    connection.execute("INSERT INTO words (rowid, text) SELECT number, text FROM texts WHERE number >= ?", (first,))


def _main(log_path: str, start: str, end: str, path: str) -> None:
    log = LogFile(Path(log_path), read_only=True)
    with closing(new_database(Path(path))) as connection:
        fill(connection, log, int(start), int(end))
    log.close()


if __name__ == "__main__":
    _main(*sys.argv[1:])

__all__ = ["Part", "fill", "index_texts", "join", "new_database", "split"]
