"""A copy of the store in a directory, as of one moment, written whole or not at all."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from client.errors import OutputError, ServerError
from client.whole_file import sync_directory


@dataclass(frozen=True, slots=True)
class BackupChunk:
    """Bytes of one of the store's files: its name, where they stand, and how large the whole file is in this copy."""

    file: str
    offset: int
    data: bytes
    size_bytes: int


def write_backup(chunks: Iterable[BackupChunk], directory: Path) -> dict[str, int]:
    """Write a copy of a store into a directory that is new or empty; the sizes of its files, by name.

    The files are synced in a directory beside it, which gets its name at the end.

    Raises:
        OutputError: something is there already, or cannot be written.
        ServerError: what came is no whole copy.
    """
    target = Path(os.path.realpath(directory))
    check_destination(target)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.mkdir()
        try:
            sizes = _fill(chunks, part)
            sync_directory(part)
            # Replaces an empty directory, and nothing else.
            part.rename(target)
            sync_directory(target.parent)
        finally:
            if part.exists():
                shutil.rmtree(part)
    except OSError as error:
        raise OutputError(f"cannot write {directory}: {error.strerror or error}") from error
    return sizes


def check_destination(directory: Path) -> None:
    """See that a backup would overwrite nothing.

    Raises:
        OutputError: something is there.
    """
    if directory.is_dir() and not any(directory.iterdir()):
        return
    if directory.exists() or directory.is_symlink():
        raise OutputError(f"{directory} is there already: a backup overwrites nothing, name a new directory")


def _fill(chunks: Iterable[BackupChunk], directory: Path) -> dict[str, int]:
    written: dict[str, int] = {}
    sizes: dict[str, int] = {}
    name, file = "", None
    try:
        for chunk in chunks:
            if file is None or chunk.file != name:
                _finish(file)
                if chunk.file in written:
                    raise ServerError(f"the copy is not in order: {chunk.file!r} comes twice")
                name, file = chunk.file, _path_in(directory, chunk.file).open("xb")
                written[name] = 0
            if chunk.offset != written[name]:
                raise ServerError(f"the copy of {name!r} has a gap at byte {written[name]}: try again")
            file.write(chunk.data)
            written[name] += len(chunk.data)
            sizes[name] = chunk.size_bytes
        _finish(file)
    finally:
        if file is not None:
            file.close()
    short = [name for name, size in sizes.items() if written[name] != size]
    if short:
        raise ServerError(f"the copy of {short[0]!r} ends at byte {written[short[0]]} of {sizes[short[0]]}: try again")
    return written


def _finish(file: BinaryIO | None) -> None:
    if file is not None:
        file.flush()
        os.fsync(file.fileno())
        file.close()


def _path_in(directory: Path, name: str) -> Path:
    """A file directly in a directory; the name came from elsewhere.

    Raises:
        ServerError: the name leads out of it.
    """
    if not name or name in {".", ".."} or "/" in name or "\\" in name or "\0" in name:
        raise ServerError(f"the copy has a file named {name!r}, which is no name of a file in a store")
    return directory / name


__all__ = ["BackupChunk", "check_destination", "write_backup"]
