"""Sections folded to the width of a terminal. The only importer of rich."""

from collections.abc import Mapping
from typing import TextIO

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


def write_rich(section: Section, stream: TextIO, columns: int) -> None:
    """Write a section, folded to so many columns; colours as NO_COLOR and TERM allow them."""
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
            console.print(_rich_table(section))


def _rich_table(table: Table) -> RichTable:
    marking = any(row.marked for row in table.rows)
    shown = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    if marking:
        shown.add_column("", no_wrap=True)
    for column in table.columns:
        shown.add_column(Text(column.heading), justify="right" if column.right else "left", overflow="fold")
    for row in table.rows:
        cells = [Text(cell, style=_STYLES.get(cell, "")) for cell in row.cells]
        mark = [Text(MARK if row.marked else "")] if marking else []
        shown.add_row(*mark, *cells, style=_MARKED if row.marked else _STYLES.get(row.style, ""))
    return shown


__all__ = ["write_rich"]
