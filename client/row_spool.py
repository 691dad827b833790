"""Rows whose columns are known only after the last of them: kept in a file meanwhile, so that memory stays constant."""

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from types import TracebackType
from typing import Any, Self

from qlog.v1.records import non_finite

Row = tuple[Any, ...]
# How the log writes numbers that JSON does not have: among numbers they are numbers.
_NON_FINITE: Mapping[str, float] = {non_finite(float(name)): float(name) for name in ("nan", "inf", "-inf")}


class Kind(Enum):
    """What a column holds beside null."""

    BOOL = "bool"
    INT = "int"
    DOUBLE = "double"
    TEXT = "text"


class RowSpool(AbstractContextManager["RowSpool"]):
    """Takes rows by column name; gives them back with all columns.

    Args:
        columns: that are there in any case, first and in this order, each with the kind it has where it is empty.
    """

    def __init__(self, columns: Mapping[str, Kind]) -> None:
        self._file = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - closed by __exit__
        self._kinds_if_empty = dict(columns)
        self._places = {name: place for place, name in enumerate(columns)}
        self._seen: list[set[type]] = [set() for _ in columns]
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up the rows."""
        self._file.close()

    def add(self, row: Mapping[str, Any]) -> None:
        """Take a row; names that are new become columns."""
        cells: list[Any] = [None] * len(self._places)
        for name, value in row.items():
            place = self._places.get(name)
            if place is None:
                place = self._places[name] = len(self._places)
                self._seen.append(set())
                cells.append(None)
            cells[place] = value
            if value is not None:
                self._seen[place].add(float if isinstance(value, str) and value in _NON_FINITE else type(value))
        self._file.write(json.dumps(cells))
        self._file.write("\n")
        self.count += 1

    def columns(self) -> dict[str, Kind]:
        """All columns, in the order in which they came."""
        return {name: self._kind(name, self._seen[place]) for name, place in self._places.items()}

    def _kind(self, name: str, seen: set[type]) -> Kind:
        if not seen:
            return self._kinds_if_empty.get(name, Kind.TEXT)
        if seen == {bool}:
            return Kind.BOOL
        if seen == {int}:
            # A column of fractions whose values happen to be whole stays one of fractions.
            return Kind.DOUBLE if self._kinds_if_empty.get(name) is Kind.DOUBLE else Kind.INT
        return Kind.DOUBLE if seen <= {int, float} else Kind.TEXT

    def rows(self, order: Sequence[str]) -> Iterator[Row]:
        """The rows, with the columns in this order."""
        places = [self._places[name] for name in order]
        self._file.seek(0)
        for line in self._file:
            cells = json.loads(line)
            cells += [None] * (len(self._places) - len(cells))
            yield tuple(cells[place] for place in places)


def as_kind(value: Any, kind: Kind) -> Any:
    """A cell as a column of that kind holds it; what is no text in a column of text is JSON."""
    if value is None:
        return None
    if kind is Kind.DOUBLE:
        return _NON_FINITE.get(value, value) if isinstance(value, str) else float(value)
    if kind is Kind.TEXT and not isinstance(value, str):
        from client.render_json import json_text

        return json_text(value, indent=None)
    return value


def batches(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Rows, so many at a time."""
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


__all__ = ["Kind", "Row", "RowSpool", "as_kind", "batches"]
