"""Sections as plain text: aligned columns, nothing cut off, no colours, no boxes."""

from collections.abc import Iterator, Sequence

from client.documents import Facts, Note, Section, Table
from client.text import pad, width

_GAP = "  "
MARK = "*"


def plain(sections: Sequence[Section]) -> str:
    """The sections, an empty line between two."""
    return "\n".join("".join(f"{line}\n" for line in _lines(section)) for section in sections)


def _lines(section: Section) -> Iterator[str]:
    match section:
        case Note(text):
            yield from text.splitlines()
        case Facts(entries, title):
            if title:
                yield title
            columns = max((width(name) for name, _ in entries), default=0)
            for name, value in entries:
                yield f"{_GAP}{pad(name, columns)}{_GAP}{value}".rstrip()
        case Table():
            if section.title:
                yield section.title
            yield from _table_lines(section)


def _table_lines(table: Table) -> Iterator[str]:
    marking = any(row.marked for row in table.rows)
    texts = [tuple(column.heading for column in table.columns), *(row.cells for row in table.rows)]
    marks = ["", *(MARK if row.marked else "" for row in table.rows)]
    columns = [max(width(cells[place]) for cells in texts) for place in range(len(table.columns))]
    for mark, cells in zip(marks, texts, strict=True):
        padded = (
            pad(cell, size, right=column.right)
            for cell, size, column in zip(cells, columns, table.columns, strict=True)
        )
        start = f"{mark:1} " if marking else ""
        yield (start + _GAP.join(padded)).rstrip()


__all__ = ["MARK", "plain"]
