"""Sections on a terminal: colours where they are wanted, and other forms where the terminal is too narrow."""

import os
import shutil
from collections.abc import Mapping, Sequence
from typing import TextIO

from client.documents import Facts, Note, Section, Table
from client.render_narrow import GAP, MARGIN, broken, folded_widths, longest_word, set_apart, stacked
from client.render_plain import Painter, plain, unpainted
from client.text import width

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
        if _width(section) <= columns:
            stream.write(plain((section,), paint))
        elif isinstance(section, Table):
            _write_narrow_table(section, stream, columns, paint)
        elif _least_width(section) <= columns:
            _write_folded(section, stream, columns)
        else:
            # No folding would keep its words whole: the terminal breaks the lines.
            stream.write(plain((section,), paint))


def _write_narrow_table(table: Table, stream: TextIO, columns: int, paint: Painter) -> None:
    lines = stacked(table)
    if lines is not None:
        stream.write(plain((lines if _width(lines) <= columns else broken(lines, columns),), paint))
    elif (widths := folded_widths(table, columns)) is not None:
        _write_folded(table, stream, columns, widths)
    else:
        stream.write(plain((set_apart(table, columns) or broken(table, columns),), paint))


def _write_folded(section: Section, stream: TextIO, columns: int, widths: Sequence[int] = ()) -> None:
    # Costs as much to import as gRPC, so only where there is something to fold.
    from client.render_rich import write_rich

    write_rich(section, stream, columns, widths)


def _width(section: Section) -> int:
    return max((width(line) for line in plain((section,)).splitlines()), default=0)


def _least_width(section: Note | Facts) -> int:
    """The columns that are needed where every text is folded between its words."""
    match section:
        case Note():
            return 0
        case Facts(entries):
            names = max((width(name) for name, _ in entries), default=0)
            return MARGIN + names + GAP + longest_word(value for _, value in entries)


__all__ = ["painter", "write_terminal"]
