"""What is known of every line of the log without reading it again.

The whole of the reading side stands on it: an index is filled line by line, in order, by a pass over the file at open
and by each append after it; lists and look-ups read it; full records are read from the file at an entry's place. It
holds nothing that is not in the files, so it can be thrown away and made anew.
"""

from dataclasses import dataclass, field
from typing import Protocol

import orjson

from collector.annotations import NOTHING_SAID, Annotation
from collector.index_cut import Cut
from collector.records import Record


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
        annotation: what was said of it after it ended.
        record: the full record, only while the line is being indexed.
        cut: where the statistics stand in the line; None where that is not known.
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
    annotation: Annotation = NOTHING_SAID
    record: Record | None = field(default=None, compare=False, repr=False)
    cut: Cut | None = field(default=None, compare=False, repr=False)

    @property
    def corrupt(self) -> bool:
        """Whether the line cannot be read."""
        return bool(self.error)

    def basic_record(self) -> Record:
        """The record without its statistics."""
        record: Record = orjson.loads(self.summary)
        return record


@dataclass(frozen=True, slots=True)
class LogMark:
    """By what a log is recognized: an index agrees with a file that still has this.

    Attributes:
        device, inode: of the file.
        mtime_ns: when it was last written to.
        head: length and CRC-32C of its beginning.
        tail: the same of what was indexed last.
    """

    device: int
    inode: int
    mtime_ns: int
    head: tuple[int, int]
    tail: tuple[int, int]


class Index(Protocol):
    """The reading side's view of the log."""

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


__all__ = ["Entry", "Index", "LogMark"]
