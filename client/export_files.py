"""Rows as files: CSV as text, Parquet through pyarrow. The only importer of pyarrow."""

from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO, TextIO

from client.errors import MissingPackageError
from client.render_csv import write_rows
from client.row_spool import Kind, Row, as_kind, batches

# Rows that are in memory at a time, and a group of the file.
_GROUP = 8192


def write_csv_table(columns: Mapping[str, Kind], rows: Iterable[Row], stream: TextIO) -> None:
    """Write a header and rows as CSV."""
    write_rows(tuple(columns), rows, stream)


def require_pyarrow() -> None:
    """Say what to install where it is not there, before anything is asked for.

    Raises:
        MissingPackageError: pyarrow is not installed.
    """
    from importlib.util import find_spec

    if find_spec("pyarrow") is None:
        raise MissingPackageError("Parquet needs pyarrow: pip install 'qlog-ssm[parquet]', or export --format csv")


def write_parquet_table(columns: Mapping[str, Kind], rows: Iterable[Row], file: BinaryIO) -> None:
    """Write rows as Parquet, typed by their columns' kinds; every column may be null."""
    import pyarrow
    from pyarrow import parquet

    types: Mapping[Kind, Any] = {
        Kind.BOOL: pyarrow.bool_(),
        Kind.INT: pyarrow.int64(),
        Kind.DOUBLE: pyarrow.float64(),
        Kind.TEXT: pyarrow.string(),
    }
    kinds = tuple(columns.values())
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in batches(rows, _GROUP):
            cells = [
                pyarrow.array([as_kind(value, kind) for value in column], types[kind])
                for column, kind in zip(zip(*batch, strict=True), kinds, strict=True)
            ]
            writer.write_table(pyarrow.Table.from_arrays(cells, schema=schema))


__all__ = ["require_pyarrow", "write_csv_table", "write_parquet_table"]
