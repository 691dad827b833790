"""Sections on a terminal: colours where they are wanted, and columns folded where the terminal is too narrow."""

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

from client.documents import Facts, Note, Section, Table
from client.render_plain import Painter, plain, unpainted
from client.text import width

# Room between two columns, and for a mark before the first.
_GAP = 2
_MARGIN = 2

# ECMA-48's numbers for the colours of each role.
_CODES: Mapping[str, str] = {
    "title": "1",
    "heading": "1",
    "marked": "33",
    "COMPLETED": "32",
    "FAILED": "31",
    "LOST": "31",
    "CORRUPT": "31",
    "CANCELLED": "33",
    "RUNNING": "36",
    "QUEUED": "34",
}


def _painted(text: str, role: str) -> str:
    return f"\x1b[{_CODES[role]}m{text}\x1b[0m" if role in _CODES else text


def painter(environment: Mapping[str, str]) -> Painter:
    """How to colour, as NO_COLOR and TERM allow it."""
    colourless = environment.get("NO_COLOR") or environment.get("TERM", "dumb") == "dumb"
    return unpainted if colourless else _painted


def write_terminal(sections: Sequence[Section], stream: TextIO) -> None:
    """Write the sections, an empty line between two."""
    columns, paint = shutil.get_terminal_size().columns, painter(os.environ)
    for place, section in enumerate(sections):
        if place:
            stream.write("\n")
        if _width(section) > columns >= _least_width(section):
            # Costs as much to import as gRPC, so only where there is something to fold.
            from client.render_rich import write_rich

            write_rich(section, stream, columns)
        else:
            # It fits, or else no folding would keep its words whole: the terminal breaks the lines.
            stream.write(plain((section,), paint))


def _width(section: Section) -> int:
    return max((width(line) for line in plain((section,)).splitlines()), default=0)


def _least_width(section: Section) -> int:
    """The columns that are needed where every cell is folded between its words."""
    match section:
        case Note():
            return 0
        case Facts(entries):
            names = max((width(name) for name, _ in entries), default=0)
            return _MARGIN + names + _GAP + _longest_word(value for _, value in entries)
        case Table():
            cells = zip(*(row.cells for row in section.rows), strict=True)
            headings = (column.heading for column in section.columns)
            columns = [_longest_word((heading, *texts)) for heading, texts in zip(headings, cells, strict=True)]
            return _MARGIN + sum(columns) + _GAP * len(columns)


def _longest_word(texts: Iterable[str]) -> int:
    return max((width(word) for text in texts for word in text.split()), default=0)


__all__ = ["painter", "write_terminal"]
