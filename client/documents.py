"""What a command shows, before it is known how: sections of facts and tables.

A command builds one `Output`; `client.render` writes it as a table, JSON, CSV or Markdown.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        heading: without the group.
        right: its cells stand at the right.
        group: what it shows a part of, such as an experiment. All groups of a table have the same headings.
    """

    heading: str
    right: bool = False
    group: str = ""

    @property
    def title(self) -> str:
        """The heading, with the group before it."""
        return f"{self.group} {self.heading}" if self.group else self.heading


@dataclass(frozen=True, slots=True)
class Row:
    """Cells as text, escaped; `marked` where the row differs from others; `style`: a state to colour it by."""

    cells: tuple[str, ...]
    marked: bool = False
    style: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings; a row has as many cells as there are columns, or a single one that stands over them all."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    title: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and their values, both as text, escaped."""

    entries: tuple[tuple[str, str], ...]
    title: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """Lines of text, escaped."""

    text: str


Section: TypeAlias = Table | Facts | Note


@dataclass(frozen=True, slots=True)
class Flat:
    """The same as one table of plain values, for CSV: null is empty, true and false in lower case."""

    header: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Output:
    """All forms of one answer.

    Attributes:
        sections: for people: tables and Markdown.
        data: JSON values, for `--format json`.
        flat: for `--format csv`.
    """

    sections: tuple[Section, ...]
    data: Any
    flat: Flat = field(default_factory=lambda: Flat((), ()))


__all__ = ["Column", "Facts", "Flat", "Note", "Output", "Row", "Section", "Table"]
