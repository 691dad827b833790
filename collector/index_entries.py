"""Entries as they are read from the index's tables."""

from collections.abc import Sequence

import orjson

from collector.annotations import Annotation
from collector.index import Entry
from collector.index_cut import Read, summary_at
from collector.index_values import TRUE

ENTRY = (
    "SELECT l.number, l.place, l.length, l.experiment_id, l.head, l.tail, s.summary, l.stats_count, l.events,"
    " l.verified, l.corrupt, l.error, l.tags, l.note, l.archived"
    " FROM lines l LEFT JOIN summaries s ON s.number = l.number"
)


def entry_of(row: Sequence[object], read: Read) -> Entry:
    """The entry of a row of `ENTRY`."""
    number, place, length, name, head, tail, summary, stats, events, verified, corrupt, error, tags, note, archived = (
        row
    )
    cut = (head, tail) if isinstance(head, int) and isinstance(tail, int) else None
    if cut is not None:
        summary = summary_at(read, place, length, cut)  # type: ignore[arg-type]
    return Entry(
        number,  # type: ignore[arg-type]
        place,  # type: ignore[arg-type]
        length,  # type: ignore[arg-type]
        str(name or ""),
        summary if isinstance(summary, bytes) else b"",
        stats,  # type: ignore[arg-type]
        events,  # type: ignore[arg-type]
        bool(verified),
        str(error) if corrupt else "",
        Annotation(tuple(orjson.loads(tags)) if isinstance(tags, bytes) else (), str(note or ""), archived == TRUE),
        cut=cut,
    )


__all__ = ["ENTRY", "entry_of"]
