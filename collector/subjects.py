"""How the meta file names an experiment, and which line that is now.

An experiment with an id is named by that and its number; a line without an id by its number and its checksum, so that
another log in the same place is not spoken of.
"""

import google_crc32c

from collector.index import Entry, Index
from collector.logfile import LogFile
from collector.records import Json

Subject = dict[str, Json]


def subject_of(entry: Entry, log: LogFile) -> Subject:
    """The name of a line's experiment."""
    if entry.experiment_id:
        return {"number": entry.number, "experiment_id": entry.experiment_id.lower()}
    return {"number": entry.number, "line": _line_sum(entry, log)}


def place_of(subject: Subject, index: Index, log: LogFile) -> int | None:
    """The number that a subject has now; None while it has none, and for one of another log."""
    number, name = subject.get("number"), subject.get("experiment_id")
    entry = index.by_number(number) if isinstance(number, int) else None
    if isinstance(name, str):
        if entry is None or entry.experiment_id.lower() != name:
            entry = index.by_id(name)
        return None if entry is None else entry.number
    if entry is None or entry.experiment_id or _line_sum(entry, log) != subject.get("line"):
        return None
    return entry.number


def _line_sum(entry: Entry, log: LogFile) -> str:
    total = 0
    for chunk in log.chunks(entry.offset, entry.offset + entry.length):
        total = google_crc32c.extend(total, chunk)
    return f"{total:08x}"


__all__ = ["Subject", "place_of", "subject_of"]
