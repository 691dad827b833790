"""Sections folded to the width of a terminal. The only importer of rich."""

from collections.abc import Mapping, Sequence
from typing import Literal, TextIO

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from client.documents import Facts, Note, Section, Table
from client.render_plain import MARK

_STYLES: Mapping[str, str] = {
    "COMPLETED": "green",
    "FAILED": "red",
    "LOST": "red",
    "CORRUPT": "red",
    "CANCELLED": "yellow",
    "RUNNING": "cyan",
    "QUEUED": "blue",
}
_MARKED = "yellow"


def write_rich(section: Section, stream: TextIO, columns: int, widths: Sequence[int] = ()) -> None:
    """Write a section, folded to so many columns; colours as NO_COLOR and TERM allow them.

    Args:
        widths: of a table's columns.
    """
    console = Console(file=stream, width=columns, highlight=False, markup=False, emoji=False)
    match section:
        case Note(text):
            console.print(Text(text))
        case Facts(entries, title):
            if title:
                console.print(Text(title, style="bold"))
            grid = RichTable.grid(padding=(0, 2))
            grid.add_column(no_wrap=True)
            grid.add_column(overflow="fold")
            for name, value in entries:
                grid.add_row(Text(f"  {name}"), Text(value, style=_STYLES.get(value, "")))
            console.print(grid)
        case Table():
            if section.title:
                console.print(Text(section.title, style="bold"))
            console.print(_rich_table(section, widths))


def _rich_table(table: Table, widths: Sequence[int]) -> RichTable:
    marking = any(row.marked for row in table.rows)
    shown = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column, size in zip(table.columns, widths, strict=True):
        first = marking and column is table.columns[0]
        justify: Literal["left", "right"] = "right" if column.right else "left"
        title = f"  {column.title}" if first else column.title
        shown.add_column(Text(title), justify=justify, overflow="fold", width=size + 2 * first)
    for row in table.rows:
        cells = [Text(cell, style=_STYLES.get(cell, "")) for cell in row.cells]
        if marking:
            cells[0] = Text(f"{MARK if row.marked else '':1} ") + cells[0]
        shown.add_row(*cells, style=_MARKED if row.marked else _STYLES.get(row.style, ""))
    return shown


__all__ = ["write_rich"]
