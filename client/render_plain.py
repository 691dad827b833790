"""Sections as plain text: aligned columns, nothing cut off, no boxes; no colours but those that a painter gives."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from client.documents import Facts, Note, Row, Section, Table
from client.text import pad, width

# (text, role) -> text, as wide as before. Roles: "title", "heading", "marked", or the state of an experiment or job.
Painter: TypeAlias = Callable[[str, str], str]

_GAP = "  "
MARK = "*"


def unpainted(text: str, _role: str) -> str:
    """The text as it is."""
    return text


def plain(sections: Sequence[Section], paint: Painter = unpainted) -> str:
    """The sections, an empty line between two."""
    return "\n".join("".join(f"{line}\n" for line in _lines(section, paint)) for section in sections)


def _lines(section: Section, paint: Painter) -> Iterator[str]:
    match section:
        case Note(text):
            yield from text.splitlines()
        case Facts(entries, title):
            if title:
                yield paint(title, "title")
            columns = max((width(name) for name, _ in entries), default=0)
            for name, value in entries:
                yield f"{_GAP}{pad(name, columns)}{_GAP}{paint(value, value)}".rstrip()
        case Table():
            if section.title:
                yield paint(section.title, "title")
            yield from _table_lines(section, paint)


def _table_lines(table: Table, paint: Painter) -> Iterator[str]:
    marking = any(row.marked for row in table.rows)
    heading = Row(tuple(column.title for column in table.columns), style="heading")
    rows = (heading, *table.rows)
    whole = [row.cells for row in rows if len(row.cells) == len(table.columns)]
    columns = [max(map(width, cells)) for cells in zip(*whole, strict=True)]
    for row in rows:
        padded = (
            pad(cell, size, right=column.right)
            for cell, size, column in zip(row.cells, columns, table.columns, strict=len(row.cells) > 1)
        )
        start = f"{MARK if row.marked else '':1} " if marking else ""
        yield paint((start + _GAP.join(padded)).rstrip(), "marked" if row.marked else row.style)


__all__ = ["MARK", "Painter", "plain", "unpainted"]
