"""Writes an answer in the form that was asked for."""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import TextIO

from client.documents import Output


class Format(Enum):
    """How answers are written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "markdown"


# Each form imports its own tools when it is first used: a command starts with what it needs.
def _table(output: Output, stream: TextIO) -> None:
    if stream.isatty():
        from client.render_terminal import write_terminal

        write_terminal(output.sections, stream)
    else:
        from client.render_plain import plain

        stream.write(plain(output.sections))


def _json(output: Output, stream: TextIO) -> None:
    from client.render_json import json_text

    stream.write(json_text(output.data) + "\n")


def _csv(output: Output, stream: TextIO) -> None:
    from client.render_csv import write_csv

    write_csv(output.flat, stream)


def _markdown(output: Output, stream: TextIO) -> None:
    from client.render_markdown import markdown

    stream.write(markdown(output.sections))


WRITERS: Mapping[Format, Callable[[Output, TextIO], None]] = {
    Format.TABLE: _table,
    Format.JSON: _json,
    Format.CSV: _csv,
    Format.MARKDOWN: _markdown,
}


def write(output: Output, form: Format, stream: TextIO) -> None:
    """Write an answer; as a table with colours where the stream is a terminal, plainly where it is none."""
    WRITERS[form](output, stream)


__all__ = ["WRITERS", "Format", "write"]
