"""The database of running experiments, read to the last event."""

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from collector import batches
from collector.fsck import Checked, Finding

# A copy is taken again where the database was written to meanwhile.
_ATTEMPTS = 5


def check_events(
    connection: sqlite3.Connection, name: str, count_of: Callable[[bytes], int], has_line: Callable[[str], bool]
) -> Iterator[Finding]:
    """Every batch of every experiment.

    Args:
        connection: to the database, which stays as it is meanwhile.
        name: of its file.
        count_of: the events in a payload; ValueError where it cannot be read.
        has_line: whether an experiment has its line: what is left of its events is about to be removed.
    """
    try:
        batches.check(connection)
        ends: dict[str, int] = {}
        for experiment_id, first, count, payload in batches.all_batches(connection):
            end = ends.get(experiment_id, 0)
            if first != end and not has_line(experiment_id):
                message = f"events {end} to {first - 1} are missing: its sender has to send again from {end}"
                if first < end:
                    message = f"a batch of events from {first} stands among others: it is not read"
                yield Finding("MISSING_EVENTS", "ERROR", name, message, experiment_id=experiment_id)
            ends[experiment_id] = max(end, first + count)
            try:
                found = count_of(payload)
                trouble = "" if found == count else f"{found} instead of {count}"
            except ValueError as error:
                trouble = f"cannot be read: {error}"
            if trouble:
                message = f"the events from {first} on: {trouble}; the record will count them as damaged"
                yield Finding("DAMAGED_EVENTS", "ERROR", name, message, experiment_id=experiment_id)
    except batches.UNREADABLE as error:
        message = f"the database cannot be read ({error}): set aside by the next collector; senders send again"
        yield Finding("DAMAGED_EVENTS", "ERROR", name, message)


def check_copy(
    path: Path, count_of: Callable[[bytes], int], has_line: Callable[[str], bool], checked: Checked
) -> Iterator[Finding]:
    """The same in a copy: for one who may not write beside the database."""
    wal = Path(f"{path}-wal")
    if not path.exists():
        return
    with tempfile.TemporaryDirectory(prefix="collector-") as directory:
        copy = Path(directory) / path.name
        for _ in range(_ATTEMPTS):
            before = _state(path), _state(wal)
            for source, target in ((path, copy), (wal, Path(f"{copy}-wal"))):
                if source.exists():
                    shutil.copyfile(source, target)
                else:
                    target.unlink(missing_ok=True)
            if before == (_state(path), _state(wal)):
                break
        if copy.stat().st_size == 0 and not Path(f"{copy}-wal").exists():
            return
        checked.bytes += copy.stat().st_size
        with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
            yield from check_events(connection, path.name, count_of, has_line)


def _state(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns


__all__ = ["check_copy", "check_events"]
