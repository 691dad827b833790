"""What the writer answers, and what it asks of the parts around it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from collector.errors import CollectorError
from collector.index import Entry
from collector.records import UNFINISHED_KEY, Record

_UNFINISHED = f'"{UNFINISHED_KEY}":'.encode()


@dataclass(frozen=True, slots=True)
class Receipt:
    """What is on disk.

    Attributes:
        committed_offset: all events before it.
        number: of the experiment's line, once it is over.
        finished: it is over: it takes no more events.
    """

    committed_offset: int
    number: int | None = None
    finished: bool = False


Done = Callable[[Receipt | CollectorError], None]


@dataclass(frozen=True)
class Codec:
    """What the writer asks of those who know what events are.

    Attributes:
        fold_record: (experiment id, its batches as (payload, count)) -> its record; LOST where there is no finish.
        without_first: (payload, n) -> the payload without its first n events.
    """

    fold_record: Callable[[str, Iterable[tuple[bytes, int]]], Record]
    without_first: Callable[[bytes, int], bytes]


@dataclass(frozen=True)
class Ledger:
    """What the writer asks of the store around it.

    Attributes:
        find: the line of an experiment, if it has one, as completed by its amendment.
        append: write the lines of records, in their order, and index them; RetryError where they cannot be. Some may be
            there then; those are found.
        amend: complete the line of an experiment by the whole of it; RetryError where that cannot be.
        changed: some experiments have more events, or their line.
        watchers_behind: (experiment id, number, events) -> somebody who follows it has not read all of them.
    """

    find: Callable[[str], Entry | None]
    append: Callable[[Sequence[Record]], list[Entry]]
    amend: Callable[[Entry, Record], Entry]
    changed: Callable[[], None]
    watchers_behind: Callable[[str, int, int], bool]


def is_unfinished(entry: Entry) -> bool:
    """Whether a line was given to an experiment that was not heard of any more: it may come back and be completed."""
    return _UNFINISHED in entry.summary and entry.basic_record().get(UNFINISHED_KEY) is True


def receipt_of(entry: Entry, stored: int) -> Receipt:
    """The receipt of an experiment that has its line.

    Args:
        entry: of the line.
        stored: events of it that are still on disk, as events.
    """
    if is_unfinished(entry):
        # What is not there any more is sent again from the beginning.
        return Receipt(stored)
    return Receipt(entry.events or 0, entry.number, finished=True)


__all__ = ["Codec", "Done", "Ledger", "Receipt", "is_unfinished", "receipt_of"]
