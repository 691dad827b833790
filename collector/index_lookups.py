"""Lines of the index by their number, their id, their place in the order."""

from collector.index import Entry, LogMark
from collector.index_base import IndexBase
from collector.index_entries import ENTRY, entry_of
from collector.index_mark import mark_from_text
from collector.index_values import Value

_ID = "experiment_id IS NOT NULL AND experiment_id"
_AFTER_ALL = "\U0010ffff"


class Lookups(IndexBase):
    """See `collector.index.Index`."""

    def indexed(self) -> int:
        """Bytes of the log that have been indexed."""
        return self._state("indexed")

    def count(self) -> int:
        """See `Index`."""
        return self._state("count")

    def corrupt_count(self) -> int:
        """See `Index`."""
        return self._state("corrupt")

    def _state(self, column: str) -> int:
        with self.reading() as connection:
            return int(connection.execute(f"SELECT {column} FROM state").fetchone()[0])  # noqa: S608 - ours

    def log_mark(self) -> LogMark | None:
        """The mark of the log that was indexed."""
        with self.reading() as connection:
            text = connection.execute("SELECT log FROM state").fetchone()[0]
        return mark_from_text(text)

    def mark(self, name: str) -> str:
        """How far a file other than the log was taken in, in the words of whoever does that; empty: not at all."""
        with self.reading() as connection:
            row = connection.execute("SELECT text FROM marks WHERE name = ?", (name,)).fetchone()
        return row[0] if row else ""

    def by_number(self, number: int) -> Entry | None:
        """See `Index`."""
        return self._one("WHERE l.number = ?", number) if 0 <= number < 2**63 else None

    def by_id(self, experiment_id: str) -> Entry | None:
        """See `Index`."""
        return self._one(f"WHERE l.{_ID} = ? ORDER BY l.number LIMIT 1", experiment_id)

    def first_corrupt(self) -> Entry | None:
        """The first corrupt line."""
        return self._one("WHERE l.corrupt = 1 ORDER BY l.number LIMIT 1")

    def _one(self, where: str, *values: Value) -> Entry | None:
        with self.reading() as connection:
            row = connection.execute(f"{ENTRY} {where}", values).fetchone()
        return None if row is None else entry_of(row, self._read)

    def ids_with_prefix(self, prefix: str, limit: int) -> list[str]:
        """See `Index`."""
        with self.reading() as connection:
            rows = connection.execute(
                f"SELECT DISTINCT lower(experiment_id) FROM lines WHERE {_ID} >= ? AND experiment_id <= ?"  # noqa: S608
                " ORDER BY experiment_id LIMIT ?",
                (prefix, prefix + _AFTER_ALL, limit),
            ).fetchall()
        return [row[0] for row in rows]

    def page(self, start: int, limit: int, *, descending: bool) -> list[Entry]:
        """See `Index`."""
        where = "WHERE l.number <= ? ORDER BY l.number DESC" if descending else "WHERE l.number >= ? ORDER BY l.number"
        with self.reading() as connection:
            rows = connection.execute(f"{ENTRY} {where} LIMIT ?", (min(start, 2**63 - 1), limit)).fetchall()
        return [entry_of(row, self._read) for row in rows]

    def spoken_of(self) -> tuple[set[int], set[int]]:
        """The lines that have an annotation, and those that were amended."""
        with self.reading() as connection:
            said = "tags IS NOT NULL OR note IS NOT NULL OR archived = x'74'"
            annotated = {row[0] for row in connection.execute(f"SELECT number FROM lines WHERE {said}")}  # noqa: S608
            amended = {row[0] for row in connection.execute("SELECT number FROM lines WHERE amended = 1")}
        return annotated, amended


__all__ = ["Lookups"]
