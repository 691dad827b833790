"""`qlog import`."""

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

import click

from client.cli.options import answer, note, settings_of, shared_options
from client.errors import InputError, RejectedError
from client.settings import Use, open_collector

_CHUNK_BYTES = 256 * 1024
_EPILOG = """\b
Examples:
  qlog import old/percentile_experiments.jsonl
  qlog --log_dir logs export | qlog import - --collector gpu1:50551
  qlog import results.jsonl --log_dir logs --format json
"""


@click.command("import", epilog=_EPILOG)
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, allow_dash=True))
@shared_options
@click.pass_context
def command(ctx: click.Context, *, file: Path) -> None:
    """Add the experiments of another log: a file of JSON lines, or - for the standard input.

    Takes what `qlog export` writes, and lines of the earlier logger. Each gets the next number; one that is there
    already is not added again, so that the same file may be imported twice. Lines that are no experiments are rejected
    and the others taken; then the exit code is 1.
    """
    from client.import_document import import_output

    settings = settings_of(ctx)
    with _opened(file) as source, open_collector(settings, Use.FILL) as session:
        report = session.api.import_lines(_chunks(source, file))
    answer(import_output(report), settings)
    for reason in report.reasons:
        note(reason)
    if report.rejected:
        lines = "1 line was" if report.rejected == 1 else f"{report.rejected} lines were"
        raise RejectedError(f"{lines} rejected: no experiments; what else {file} holds is imported")


def _opened(file: Path) -> "BinaryIO | nullcontext[BinaryIO]":
    if str(file) == "-":
        return nullcontext(sys.stdin.buffer)
    try:
        return file.open("rb")
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}") from error


def _chunks(source: BinaryIO, file: Path) -> Iterator[bytes]:
    """The bytes of a file, in pieces that a message may have; a last line without its newline gets one."""
    last = b"\n"
    try:
        while chunk := source.read(_CHUNK_BYTES):
            yield chunk
            last = chunk[-1:]
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}") from error
    if last != b"\n":
        yield b"\n"
