"""The index of a long log, made in one go: in a file of its own that then takes the index's place.

Other processes take in parts of the log meanwhile (`collector.index_part`), and their tables are then joined to this
one's. Nothing is synced until the end: what is interrupted leaves files that nobody opens.
"""

import os
import shutil
import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path

from collector.files import sync_directory
from collector.index_database import remove_database
from collector.index_mark import mark_of, mark_text
from collector.index_part import Part, fill, index_texts, join, new_database, split
from collector.index_schema import INDEXES, statements
from collector.logfile import LogFile

_NEW, _PARTS = ".new", ".parts"


def build_index(path: Path, log: LogFile) -> None:
    """Make the index of a log as it stands.

    Args:
        path: of the index; replaced where it is there.
        log: open.

    Raises:
        OSError, sqlite3.Error: it cannot be written.
    """
    fresh, folder = (path.with_name(f"{path.name}.{os.getpid()}{suffix}") for suffix in (_NEW, _PARTS))
    remove_database(fresh)
    folder.mkdir(exist_ok=True)
    try:
        with closing(new_database(fresh)) as connection:
            _fill(connection, log, folder)
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        remove_database(path)
        fresh.rename(path)
    except BaseException:
        remove_database(fresh)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sync_directory(path.parent)


def remove_unfinished(path: Path) -> None:
    """Remove what processes that are no more have left of an index of this name."""
    for suffix in (_NEW, _PARTS):
        for left in path.parent.glob(f"{path.name}.*{suffix}"):
            pid = left.name.removesuffix(suffix).rpartition(".")[2]
            if pid.isdigit() and Path("/proc/self").exists() and not Path("/proc", pid).exists():
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def _fill(connection: sqlite3.Connection, log: LogFile, folder: Path) -> None:
    end = log.committed
    places = split(log, end)
    parts = [Part(folder / f"{start}.sqlite", log, start, until) for start, until in pairwise([*places[1:], end])]
    try:
        fill(connection, log, 0, parts[0].start if parts else end)
        index_texts(connection, 0)
        for part in parts:
            join(connection, part.wait())
    finally:
        for part in parts:
            part.stop()
    connection.execute("UPDATE state SET indexed = ?, log = ?", (end, mark_text(mark_of(log, end))))
    for statement in statements(INDEXES):
        connection.execute(statement)


__all__ = ["build_index", "remove_unfinished"]
