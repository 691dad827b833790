"""The log's bytes as entries of the index."""

from collections.abc import Iterator
from dataclasses import dataclass

from collector.index import Entry, entry_from_line
from collector.limits import MAX_LINE_BYTES
from collector.lines import is_blank, iterate_lines, split_lost_newlines
from collector.logfile import LogFile

# Of the log, indexed in one transaction.
_STEP_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Step:
    """A stretch of the log, to be indexed in one go.

    Attributes:
        start, end: in bytes; it holds whole lines.
        entries: of its lines.
    """

    start: int
    end: int
    entries: list[Entry]


def steps(log: LogFile, start: int, end: int, number: int) -> Iterator[Step]:
    """The lines between two places of a log.

    Args:
        log: open.
        start, end: places behind a newline, in bytes.
        number: of the first line.
    """
    entries: list[Entry] = []
    step_start, size = start, 0
    for offset, length, line in iterate_lines(log.chunks(start, end), start, MAX_LINE_BYTES):
        if line is None or not is_blank(line):
            found = entries_of(number, offset, length, line)
            number += len(found)
            entries += found
        size += length
        here = offset + length
        if size >= _STEP_BYTES or here >= end:
            yield Step(step_start, here, entries)
            entries, step_start, size = [], here, 0


def entries_of(number: int, offset: int, length: int, line: bytes | None) -> list[Entry]:
    """The entries of one line: several where newlines were damaged and are still recognizable."""
    entry = entry_from_line(number, offset, length, line)
    pieces = split_lost_newlines(line) if entry.corrupt and line is not None else []
    if len(pieces) < 2:
        return [entry]
    entries = []
    for place, piece in enumerate(pieces):
        # All but the last end in the byte that was a newline.
        text = piece if piece is pieces[-1] else piece[:-1]
        entries.append(entry_from_line(number + place, offset, len(text), text))
        offset += len(piece)
    return entries


__all__ = ["Step", "entries_of", "steps"]
