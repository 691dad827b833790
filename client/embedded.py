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
def open_store(log_dir: Path) -> Iterator[LocalStore]:
    """Serve the store in a directory for reading, or find the process that serves it.

    Raises:
        StoreError: the directory cannot be read.
    """
    from collector.embedded import CollectorError, open_local

    try:
        local = open_local(log_dir, read_only=True)
    except CollectorError as error:
        raise StoreError(str(error)) from error
    except OSError as error:
        raise StoreError(f"--log_dir {log_dir}: cannot be read: {error.strerror or error}") from error
    try:
        yield LocalStore(local.endpoint, local.owned)
    finally:
        local.close()


__all__ = ["LocalStore", "open_store"]
