"""Sections as GitHub's Markdown."""

from collections.abc import Iterator, Sequence

from client.documents import Column, Facts, Note, Row, Section, Table
from client.render_plain import MARK


def markdown(sections: Sequence[Section]) -> str:
    """The sections under headings, an empty line between two."""
    return "\n".join("".join(f"{line}\n" for line in _lines(section)) for section in sections)


def _lines(section: Section) -> Iterator[str]:
    if isinstance(section, Note):
        yield from (_escaped(line) for line in section.text.splitlines())
        return
    if section.title:
        yield f"### {_escaped(section.title)}"
        yield ""
    if isinstance(section, Facts):
        yield from _table_lines(Table((Column(""), Column("")), tuple(Row(entry) for entry in section.entries)))
    else:
        yield from _table_lines(section)


def _table_lines(table: Table) -> Iterator[str]:
    marking = any(row.marked for row in table.rows)
    columns = (*((Column(""),) if marking else ()), *table.columns)
    yield _line(column.title for column in columns)
    yield "|" + "|".join(" ---: " if column.right else " --- " for column in columns) + "|"
    for row in table.rows:
        mark = (MARK if row.marked else "",) if marking else ()
        yield _line((*mark, *row.cells))


def _line(cells: Sequence[str] | Iterator[str]) -> str:
    return "| " + " | ".join(_escaped(cell) for cell in cells) + " |"


def _escaped(text: str) -> str:
    r"""Text as Markdown shows it: what would end a cell, begin a tag or a link, or emphasize gets a backslash."""
    for character in "\\|<*`":
        text = text.replace(character, "\\" + character)
    # Brackets alone are intervals; escaped, some would read them as mathematics.
    return text.replace("](", "]\\(")


__all__ = ["markdown"]
