"""What filters and orders ask the index: which lines match, in which order, how many."""

import sqlite3
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from collector.filters.fields import Keys
from collector.filters.sql import Places, Sql
from collector.index import Entry
from collector.index_base import IndexBase, ReadRecord
from collector.index_cut import Read
from collector.index_entries import ENTRY, entry_of
from collector.index_names import KnownPaths
from collector.index_values import Value

_MOST_COUNTS, _MOST_ENTRIES = 256, 1024


@dataclass(frozen=True, slots=True)
class Found:
    """One line that a question found, with the values that it was ordered by."""

    entry: Entry
    keys: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class _Count:
    generation: int
    upto: int
    count: int


class Questions(IndexBase):
    """The questions of an open index."""

    def __init__(
        self, path: Path | None, read: Read, read_record: ReadRecord, folder: TemporaryDirectory[str] | None = None
    ) -> None:
        super().__init__(path, read, read_record, folder)
        self._paths = KnownPaths()
        self._entries: dict[tuple[int, int], Entry] = {}
        self._counts: OrderedDict[tuple[str, tuple[Value, ...]], _Count] = OrderedDict()

    def paths(self) -> Mapping[str, Sequence[Keys]]:
        """See `collector.filters.fields.Catalogue`."""
        with self.reading() as connection:
            return self._paths.read(connection)

    def statistics(self) -> Sequence[str]:
        """See `collector.filters.fields.Catalogue`."""
        with self.reading() as connection:
            return [name for (name,) in connection.execute("SELECT name FROM statistics")]

    def places(self) -> Places:
        """Where values without a column are, for `compile_filter`."""
        return Places(self._tracked.path, self._tracked.statistic)

    def select(self, where: Sql, keys: Sequence[Sql], order: str, after: Sql, limit: int) -> list[Found]:
        """Lines for which two expressions hold, in an order.

        Args:
            where, after: expressions on a row `l` of `lines`.
            keys: more expressions, whose values are wanted too.
            order: what stands behind ORDER BY; `k0`, `k1`, ... are the keys.
            limit: at most so many.
        """
        columns = "".join(f", {key.text} AS k{place}" for place, key in enumerate(keys))
        # The lines first, then what is shown of them: a sort moves no summaries.
        inner = (
            f"SELECT l.number AS n{columns} FROM lines l WHERE ({where.text}) AND ({after.text})"  # noqa: S608 - bound
            f" ORDER BY {order} LIMIT ?"
        )
        values = (*(value for key in keys for value in key.values), *where.values, *after.values, limit)
        with self.reading(whole=True) as connection:
            rows = connection.execute(inner, values).fetchall()
            (generation,) = connection.execute("SELECT generation FROM state").fetchone()
            return [Found(self._entry(connection, row[0], generation), row[1:]) for row in rows]

    def _entry(self, connection: sqlite3.Connection, number: int, generation: int) -> Entry:
        """An entry; kept, as most lists show the same lines, until something is said of any line."""
        found = self._entries.get((number, generation))
        if found is None:
            row = connection.execute(f"{ENTRY} WHERE l.number = ?", (number,)).fetchone()
            found = entry_of(row, self._read)
            if len(self._entries) >= _MOST_ENTRIES:
                self._entries.clear()
            self._entries[number, generation] = found
        return found

    def matching(self, where: Sql) -> int:
        """How many lines an expression holds for. Counted once; later only what was added since."""
        name = (where.text, where.values)
        with self.reading(whole=True) as connection:
            count, generation = connection.execute("SELECT count, generation FROM state").fetchone()
            known = self._counts.get(name)
            if known is None or known.generation != generation or known.upto > count:
                known = _Count(generation, 0, 0)
            if known.upto < count:
                row = connection.execute(
                    f"SELECT count(*) FROM lines l WHERE l.number >= ? AND l.number < ? AND ({where.text})",  # noqa: S608
                    (known.upto, count, *where.values),
                ).fetchone()
                known = _Count(generation, count, known.count + row[0])
        self._counts[name] = known
        while len(self._counts) > _MOST_COUNTS:
            self._counts.popitem(last=False)
        return known.count


__all__ = ["Found", "Questions"]
