"""An export that goes on where a file ends: one that was broken off, or one of a while ago."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from client.errors import OutputError

_BLOCK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a file has of a log: whole lines up to `end`, the last of them from `start` on. Both 0: none."""

    start: int
    end: int


def beginning_of(file: BinaryIO) -> Beginning:
    """The whole lines of a file; what stands behind the last newline is part of one that is to come again."""
    end = _after_newline(file, file.seek(0, os.SEEK_END))
    return Beginning(_after_newline(file, end - 1) if end else 0, end)


def _after_newline(file: BinaryIO, before: int) -> int:
    """The place behind the last newline that stands before a place; 0 where there is none."""
    while before > 0:
        start = max(0, before - _BLOCK_BYTES)
        file.seek(start)
        found = file.read(before - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        before = start
    return 0


@contextmanager
def opened_at_end(path: Path) -> Iterator[BinaryIO]:
    """A file to read and to go on with, on disk at the end of the block; made where it is not there.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        path.touch(exist_ok=True)
        with path.open("r+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def go_on(file: BinaryIO, path: Path, export: Callable[[int], Iterable[bytes]]) -> int:
    """Write what a log has behind a file's whole lines; how many lines came.

    Args:
        path: of the file, for errors.
        export: the bytes of the log from a place on. The file's last line is asked for again, and has to be the same.

    Raises:
        OutputError: the file is no beginning of that log; it is as it was.
        QlogError: the collector refuses; what came before is in the file.
    """
    has = beginning_of(file)
    file.seek(has.start)
    last = file.read(has.end - has.start)
    chunks = iter(export(has.start))
    came = b""
    while len(came) < len(last) and (chunk := next(chunks, b"")):
        came += chunk
    if not came.startswith(last):
        raise OutputError(f"{path} is no beginning of this log, its last line is another: export without --resume")
    file.seek(has.end)
    file.truncate()
    count = 0
    for chunk in chain((came[len(last) :],), chunks):
        file.write(chunk)
        count += chunk.count(b"\n")
    return count


__all__ = ["Beginning", "beginning_of", "go_on", "opened_at_end"]
