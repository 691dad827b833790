"""One flat table as CSV (RFC 4180, with line feeds). Characters that spreadsheets take for formulas are data: kept."""

import csv
import math
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from qlog.v1.records import non_finite

from client.documents import Flat
from client.render_json import json_text
from client.text import escape_lines


def write_csv(flat: Flat, stream: TextIO) -> None:
    """Write the header and the rows."""
    write_rows(flat.header, flat.rows, stream)


def write_rows(header: Sequence[str], rows: Iterable[Sequence[Any]], stream: TextIO) -> None:
    """Write a header and rows of plain values as they come."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([escape_lines(name) for name in header])
    writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return repr(value) if math.isfinite(value) else non_finite(value)
        case str():
            return escape_lines(value)
        case dict() | list() | tuple():
            return json_text(value, indent=None)
        case _:
            return str(value)


__all__ = ["write_csv", "write_rows"]
