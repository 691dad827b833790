"""What the index takes out of a record."""

import orjson

from collector.index import Entry
from collector.index_cut import cut_of
from collector.lines import CHECKSUM_KEY, Line
from collector.records import EVENTS_KEY, Json, Record


def entry_from_record(number: int, offset: int, length: int, line: Line, text: bytes | None = None) -> Entry:
    """The entry of a record that has been read.

    Args:
        text: the line, where it stands in a log with its checksum.
    """
    record, stats = split(line.record)
    return Entry(
        number,
        offset,
        length,
        experiment_id=id_of(record),
        summary=orjson.dumps(record),
        layer_stats_count=count_of(stats),
        events=events_of(record),
        verified=line.verified,
        record=line.record,
        cut=None if text is None else cut_of(text, (*line.record, CHECKSUM_KEY)),
    )


def split(record: Record) -> tuple[Record, dict[str, Json]]:
    """A record without its statistics, and these."""
    rest = dict(record)
    return rest, take_stats(rest)


def take_stats(record: Record) -> dict[str, Json]:
    """Take the statistics out of a record; what stands in their place and is no object stays."""
    stats = record.get("activation_stats")
    if not isinstance(stats, dict):
        return {}
    del record["activation_stats"]
    return stats


def id_of(record: Record) -> str:
    """The experiment's id; empty where it has none."""
    found = record.get("experiment_id")
    return found if isinstance(found, str) else ""


def count_of(stats: dict[str, Json]) -> int:
    """How many tensors there are."""
    return sum(isinstance(value, dict) for value in stats.values())


def events_of(record: Record) -> int | None:
    """How many events the experiment sent; None where not known."""
    events = record.get(EVENTS_KEY)
    return events if type(events) is int and 0 <= events < 2**63 else None


__all__ = ["count_of", "entry_from_record", "events_of", "id_of", "split", "take_stats"]
