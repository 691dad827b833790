"""Tables that are too wide for a terminal, in fewer columns and more lines. Nothing is left out."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from client.documents import Column, Row, Table
from client.text import pad, width

# Room between two columns, and for a mark before the first.
GAP = 2
MARGIN = 2
_INDENT = "    "
# One in so many rows may be set apart from its table.
_FEW = 4


def _margin(table: Table) -> int:
    return MARGIN if any(row.marked for row in table.rows) else 0


def longest_word(texts: Iterable[str]) -> int:
    """The columns that the widest word takes."""
    return max((width(word) for text in texts for word in text.split()), default=0)


def folded_widths(table: Table, room: int) -> list[int] | None:
    """The widths of a table's columns that fit a room with every word whole; None where none do.

    Only the widest columns give way, so that what is narrow stays in one line.
    """
    texts = [(column.title, *(row.cells[place] for row in table.rows)) for place, column in enumerate(table.columns)]
    natural = [max(map(width, column)) for column in texts]
    least = [longest_word(column) for column in texts]
    left = room - _margin(table) - GAP * (len(texts) - 1)
    if sum(least) > left:
        return None
    limit = max(natural)
    while sum(widths := [max(low, min(size, limit)) for low, size in zip(least, natural, strict=True)]) > left:
        limit -= 1
    return widths


def stacked(table: Table) -> Table | None:
    """The table with a line for each group of columns below each row's name; None where it has no groups."""
    groups = dict.fromkeys(column.group for column in table.columns[1:])
    if len(table.columns) < 2 or "" in groups:
        return None
    parts = {group: [place for place, column in enumerate(table.columns) if column.group == group] for group in groups}
    first = next(iter(parts.values()))
    columns = (table.columns[0], *(Column(table.columns[i].heading, table.columns[i].right) for i in first))

    def rows() -> Iterator[Row]:
        for row in table.rows:
            yield Row(row.cells[:1], row.marked, row.style)
            yield from (Row((f"  {group}", *(row.cells[i] for i in places))) for group, places in parts.items())

    return Table(columns, tuple(rows()), table.title)


def set_apart(table: Table, room: int) -> Table | None:
    """The table with a line for each cell of the few rows that are too wide; None where too many are.

    A row is set apart as a whole, below its name: a digest among numbers does not widen their columns.
    """
    titles = [column.title for column in table.columns]
    label_width = max(map(width, titles[1:]), default=0)
    left = room - _margin(table) - GAP * (len(titles) - 1)
    sizes = [tuple(map(width, row.cells)) for row in table.rows]
    narrowest_first = sorted(range(len(sizes)), key=lambda place: sum(sizes[place]))
    # The columns' widths with ever more of the rows.
    grown = accumulate(
        (sizes[place] for place in narrowest_first),
        lambda all_, one: tuple(map(max, all_, one)),
        initial=tuple(map(width, titles)),
    )
    fitting = sum(sum(columns) <= left for columns in grown) - 1
    if fitting < len(sizes) - len(sizes) // _FEW:
        return None
    kept = set(narrowest_first[:fitting])

    def rows() -> Iterator[Row]:
        for place, row in enumerate(table.rows):
            if place in kept:
                yield row
                continue
            yield Row(row.cells[:1], row.marked, row.style)
            for title, cell in zip(titles[1:], row.cells[1:], strict=True):
                yield Row((f"{_INDENT}{pad(title, label_width)}  {cell}",))

    return Table(table.columns, tuple(rows()), table.title)


def broken(table: Table, room: int) -> Table:
    """The table with as many lines to a row, and to the heading, as its columns need; those stay aligned."""
    titles = tuple(column.title for column in table.columns)
    whole = [row.cells for row in table.rows if len(row.cells) == len(titles)]
    sizes = [max(map(width, cells)) for cells in zip(titles, *whole, strict=True)]
    parts: list[list[int]] = [[]]
    left = room - _margin(table)
    for place, size in enumerate(sizes):
        if parts[-1] and size > left:
            parts.append([])
            left = room - _margin(table) - len(_INDENT)
        parts[-1].append(place)
        left -= size + GAP

    def lines(cells: Sequence[str]) -> Iterator[str]:
        if len(cells) < len(titles):
            yield from cells
            return
        for part in parts:
            padded = (pad(cells[i], sizes[i], right=table.columns[i].right) for i in part)
            yield (_INDENT if part is not parts[0] else "") + (" " * GAP).join(padded)

    heading, *more = lines(titles)
    rows = [Row((line,), style="heading") for line in more]
    for row in table.rows:
        first, *others = lines(row.cells)
        rows += [Row((first,), row.marked, row.style), *(Row((line,), style=row.style) for line in others)]
    return Table((Column(heading),), tuple(rows), table.title)


__all__ = ["GAP", "MARGIN", "broken", "folded_widths", "longest_word", "set_apart", "stacked"]
