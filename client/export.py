"""What `qlog export` writes, from the collector's answers to bytes, in constant memory."""

import io
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from client.api import CollectorApi
from client.export_tables import COLUMNS, TableName, ordered, rows_of
from client.row_spool import Kind, RowSpool
from client.text import harmless_json
from client.values import Experiment


@contextmanager
def opened(output: Path | None) -> Iterator[BinaryIO]:
    """Where bytes go: a file that is written whole or not at all, or the standard output.

    Raises:
        OutputError: the file cannot be written.
    """
    if output is not None:
        from client.whole_file import whole_file

        with whole_file(output) as file:
            yield file
        return
    sys.stdout.flush()
    yield sys.stdout.buffer
    sys.stdout.buffer.flush()


def copy_lines(chunks: Iterable[bytes], stream: BinaryIO) -> int:
    """Write lines as they come; how many there were."""
    count = 0
    terminal = stream.isatty()
    for chunk in chunks:
        count += chunk.count(b"\n")
        # A terminal gets the same JSON, without characters that it might act on.
        stream.write(harmless_json(chunk.decode("utf-8", "backslashreplace")).encode() if terminal else chunk)
    return count


def spool(experiments: Iterable[Experiment], table: TableName) -> RowSpool:
    """The rows of a table, on disk; to be used in a `with`."""
    rows = RowSpool(COLUMNS[table])
    try:
        for experiment in experiments:
            for row in rows_of(experiment, table):
                rows.add(row)
    except BaseException:
        rows.close()
        raise
    return rows


def fetch_table(api: CollectorApi, table: TableName, filter_text: str) -> RowSpool:
    """The rows of a table as the collector has them; to be used in a `with`.

    Raises:
        QlogError: a call failed.
    """
    return spool(api.every(filter_text, full=table is TableName.LAYERS), table)


def write_table(rows: RowSpool, table: TableName, stream: BinaryIO, *, parquet: bool) -> None:
    """Write rows as CSV or Parquet."""
    from client.export_files import write_csv_table, write_parquet_table

    kinds = rows.columns()
    names = ordered(kinds, table)
    columns: Mapping[str, Kind] = {name: kinds[name] for name in names}
    if parquet:
        write_parquet_table(columns, rows.rows(names), stream)
        return
    text = io.TextIOWrapper(stream, encoding="utf-8", errors="backslashreplace", newline="", write_through=True)
    try:
        write_csv_table(columns, rows.rows(names), text)
    finally:
        text.detach()


__all__ = ["copy_lines", "fetch_table", "opened", "spool", "write_table"]
