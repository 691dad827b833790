"""One flat table as CSV (RFC 4180, with line feeds).

A text that a spreadsheet would run as a formula gets an apostrophe before it, as OWASP advises against CSV injection:
whoever may submit a job may name a model or tag an experiment. Numbers stay as they are; JSON has texts unchanged.
"""

import csv
import math
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from qlog.v1.records import non_finite

from client.documents import Flat
from client.render_json import json_text
from client.text import escape_lines

# What a cell begins with that spreadsheets run; tabs are escaped.
_FORMULAS = ("=", "+", "-", "@")


def write_csv(flat: Flat, stream: TextIO) -> None:
    """Write the header and the rows."""
    write_rows(flat.header, flat.rows, stream)


def write_rows(header: Sequence[str], rows: Iterable[Sequence[Any]], stream: TextIO) -> None:
    """Write a header and rows of plain values as they come."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([_text(name) for name in header])
    writer.writerows([_cell(value) for value in row] for row in rows)


def _text(value: str) -> str:
    text = escape_lines(value)
    return f"'{text}" if text.startswith(_FORMULAS) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return repr(value) if math.isfinite(value) else non_finite(value)
        case str():
            return _text(value)
        case dict() | list() | tuple():
            return json_text(value, indent=None)
        case _:
            return str(value)


__all__ = ["write_csv", "write_rows"]
