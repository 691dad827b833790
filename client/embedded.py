"""The collector inside this process, for a local store: the same one as the remote one. The only importer of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from client.errors import StoreError


@dataclass(frozen=True, slots=True)
class LocalStore:
    """Who serves a local store: HOST:PORT, and whether it is this process (`owned`) or the one that writes to it."""

    endpoint: str
    owned: bool


@contextmanager
def open_store(log_dir: Path, *, write: bool = False) -> Iterator[LocalStore]:
    """Serve the store in a directory, or find the process that serves it.

    Args:
        write: also for writing; makes the directory where it is not there.

    Raises:
        StoreError: the directory cannot be read, or not be written where that is asked for.
    """
    from collector.embedded import CollectorError, open_local

    try:
        local = open_local(log_dir, read_only=not write)
    except CollectorError as error:
        raise StoreError(str(error)) from error
    except OSError as error:
        what = "used" if write else "read"
        raise StoreError(f"--log_dir {log_dir}: cannot be {what}: {error.strerror or error}") from error
    try:
        yield LocalStore(local.endpoint, local.owned)
    finally:
        local.close()


__all__ = ["LocalStore", "open_store"]
