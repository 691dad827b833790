"""Sections on a terminal: colours where they are wanted, and columns folded where the terminal is too narrow."""

import os
import shutil
from collections.abc import Mapping, Sequence
from typing import TextIO

from client.documents import Section
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
    """Write the sections; what fits the terminal as it is needs no more than colours."""
    columns = shutil.get_terminal_size().columns
    if max((width(line) for line in plain(sections).splitlines()), default=0) <= columns:
        stream.write(plain(sections, painter(os.environ)))
        return
    # Costs as much to import as gRPC, so only where there is something to fold.
    from client.render_rich import write_rich

    write_rich(sections, stream, columns)


__all__ = ["painter", "write_terminal"]
