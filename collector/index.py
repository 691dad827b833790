"""What is known of every line of the log without reading it again.

The whole of the reading side stands on this one interface: an index is filled line by line, in order, by the pass over
the file at open and by each append after it; lists and look-ups read it; full records are read from the file at an
entry's place. It holds nothing that is not in the file, so it can be thrown away and made anew.
"""

import bisect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import orjson

from collector.annotations import Annotation
from collector.lines import Line, LineError, decode_line
from collector.records import EVENTS_KEY, Record

_AFTER_ALL = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log.

    Attributes:
        number: of the line, from 0; blank lines have none.
        offset, length: where it stands in the file, in bytes, newline included.
        experiment_id: empty where it has none (the earlier logger's, corrupt ones).
        summary: the record without `activation_stats`, as JSON; empty for a corrupt line.
        layer_stats_count: tensors in `activation_stats`.
        events: how many the experiment sent; None where not known.
        verified: its checksum was there and matched.
        error: why it cannot be read; empty where it can.
    """

    number: int
    offset: int
    length: int
    experiment_id: str = ""
    summary: bytes = b""
    layer_stats_count: int = 0
    events: int | None = None
    verified: bool = False
    error: str = ""

    @property
    def corrupt(self) -> bool:
        """Whether the line cannot be read."""
        return bool(self.error)

    def basic_record(self) -> Record:
        """The record without its statistics."""
        record: Record = orjson.loads(self.summary)
        return record


def entry_from_line(number: int, offset: int, length: int, line: bytes | None) -> Entry:
    """Read a line as far as the index needs it; None is a line too long to be read."""
    if line is None:
        return Entry(number, offset, length, error=f"the line at byte {offset} is too long: {length} bytes")
    try:
        return entry_from_record(number, offset, length, decode_line(line))
    except (LineError, orjson.JSONEncodeError) as error:
        return Entry(number, offset, length, error=f"the line at byte {offset} is corrupt: {error}")


def entry_from_record(number: int, offset: int, length: int, line: Line) -> Entry:
    """The entry of a record that has been read."""
    record = dict(line.record)
    stats = record.get("activation_stats")
    count = 0
    if isinstance(stats, dict):
        del record["activation_stats"]
        count = sum(isinstance(value, dict) for value in stats.values())
    experiment_id, events = record.get("experiment_id"), record.get(EVENTS_KEY)
    return Entry(
        number,
        offset,
        length,
        experiment_id=experiment_id if isinstance(experiment_id, str) else "",
        summary=orjson.dumps(record),
        layer_stats_count=count,
        events=events if isinstance(events, int) and not isinstance(events, bool) and events >= 0 else None,
        verified=line.verified,
    )


class Index(Protocol):
    """The reading side's view of the log."""

    def add(self, entry: Entry) -> None:
        """Add the next line; its number is the count so far."""

    def annotate(self, number: int, annotation: Annotation) -> None:
        """Note what is said of an experiment now."""

    def amend(self, number: int, record: Record) -> None:
        """Complete a line: from now on its entry, but for its place, is that of the record."""

    def count(self) -> int:
        """Lines, corrupt ones too."""

    def corrupt_count(self) -> int:
        """Corrupt lines."""

    def by_number(self, number: int) -> Entry | None:
        """The line with that number."""

    def by_id(self, experiment_id: str) -> Entry | None:
        """The first line of that experiment, by its id in lower case."""

    def ids_with_prefix(self, prefix: str, limit: int) -> list[str]:
        """Up to `limit` ids that begin so, in order; all in lower case."""

    def page(self, start: int, limit: int, *, descending: bool) -> list[Entry]:
        """Up to `limit` lines from number `start` on, upwards or downwards."""


class MemoryIndex:
    """An `Index` in memory: about 2 KB a line."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries: list[Entry] = []
        self._annotations: dict[int, Annotation] = {}
        self._numbers: dict[str, int] = {}
        self._ids: list[str] = []
        self._corrupt = 0
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        """See `Index`."""
        if entry.number != len(self._entries):
            raise ValueError(f"line {entry.number} added as the {len(self._entries)}th")
        # In this order: other threads read meanwhile.
        self._entries.append(entry)
        self._corrupt += entry.corrupt
        name = entry.experiment_id.lower()
        if name and name not in self._numbers:
            self._numbers[name] = entry.number
            bisect.insort(self._ids, name)

    def annotate(self, number: int, annotation: Annotation) -> None:
        """See `Index`."""
        self._annotations[number] = annotation

    def amend(self, number: int, record: Record) -> None:
        """See `Index`."""
        before = self._entries[number]
        line = Line(record, verified=before.verified)
        self._entries[number] = entry_from_record(number, before.offset, before.length, line)

    def count(self) -> int:
        """See `Index`."""
        return len(self._entries)

    def corrupt_count(self) -> int:
        """See `Index`."""
        return self._corrupt

    def by_number(self, number: int) -> Entry | None:
        """See `Index`."""
        return self._entries[number] if 0 <= number < len(self._entries) else None

    def by_id(self, experiment_id: str) -> Entry | None:
        """See `Index`."""
        number = self._numbers.get(experiment_id)
        return None if number is None else self._entries[number]

    def ids_with_prefix(self, prefix: str, limit: int) -> list[str]:
        """See `Index`."""
        start = bisect.bisect_left(self._ids, prefix)
        end = bisect.bisect_right(self._ids, prefix + _AFTER_ALL, lo=start)
        return self._ids[start : min(end, start + limit)]

    def page(self, start: int, limit: int, *, descending: bool) -> list[Entry]:
        """See `Index`."""
        if descending:
            stop = start - limit
            return self._entries[max(start, -1) : stop if stop >= 0 else None : -1] if start >= 0 else []
        return self._entries[start : start + limit]


__all__ = ["Entry", "Index", "MemoryIndex", "entry_from_line", "entry_from_record"]
