"""The log's bytes as rows of the index."""

from collections.abc import Iterator
from dataclasses import dataclass

from collector.index_names import Names
from collector.index_rows import Rows
from collector.limits import MAX_LINE_BYTES
from collector.lines import is_blank, iterate_lines
from collector.logfile import LogFile

# Of the log, indexed in one transaction; and of lines, whose rows take memory however short they are.
_STEP_BYTES, _STEP_LINES = 8 << 20, 2000


@dataclass(frozen=True, slots=True)
class Step:
    """A stretch of the log, to be indexed in one go.

    Attributes:
        start, end: in bytes; it holds whole lines.
        rows: of its lines.
    """

    start: int
    end: int
    rows: Rows


def steps(log: LogFile, start: int, end: int, number: int, names: Names) -> Iterator[Step]:
    """The lines between two places of a log.

    Args:
        log: open.
        start, end: places behind a newline, in bytes.
        number: of the first line.
        names: told of the names in the lines.
    """
    rows, step_start = Rows(number, names), start
    for offset, length, line in iterate_lines(log.chunks(start, end), start, MAX_LINE_BYTES):
        if line is None or not is_blank(line):
            rows.add_line(offset, length, line)
        here = offset + length
        if here - step_start >= _STEP_BYTES or rows.count >= _STEP_LINES or here >= end:
            yield Step(step_start, here, rows)
            rows, step_start = Rows(rows.first + rows.count, names), here


__all__ = ["Step", "steps"]
