"""A collector inside this process, for a local log directory: the same code path as a remote one.

`open_local` is the one entry for whoever works on a local store.
"""

import socket
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from collector.errors import CollectorError, LockedError, StoreAccessError
from collector.lock import Holder, current_holder, read_holder

if TYPE_CHECKING:
    from collector.server import Server

# For how long a holder that is starting or stopping is waited for: opening a large store takes seconds.
_PATIENCE_S, _READING_PATIENCE_S = 15.0, 2.0


class LocalCollector:
    """A collector for a local store: one in this process, or that of the process which holds the store.

    Attributes:
        endpoint: HOST:PORT on loopback.
        owned: it runs in this process. Where it does not, it ends with its own process: once the endpoint is
            UNAVAILABLE, close this and call `open_local` again.
        read_only: appends are refused.
        store_path: the log.
    """

    def __init__(self, endpoint: str, store_path: Path, server: "Server | None", *, read_only: bool) -> None:
        self.endpoint = endpoint
        self.store_path = store_path
        self.owned = server is not None
        self.read_only = read_only
        self._server = server

    def close(self) -> None:
        """Stop the collector, if it is in this process; once is enough."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def __enter__(self) -> "LocalCollector":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_local(log_dir: Path, *, read_only: bool = False, allow_network_fs: bool = False) -> LocalCollector:
    """A collector for a local log directory.

    If another process on this machine holds the store, its collector. Else one in this process: with the lock; without
    it, reading only, where that is asked for or the directory cannot be written.

    Args:
        log_dir: made where it is not there, unless `read_only`.
        read_only: take no lock and touch nothing; a directory that is not there is an empty store.
        allow_network_fs: take the lock even on a network file system.

    Raises:
        CollectorError: the store cannot be used; one line.
    """
    from collector.store import LOCK_NAME, LOG_NAME

    lock_path, store_path = log_dir / LOCK_NAME, log_dir / LOG_NAME
    patience = time.monotonic() + (_READING_PATIENCE_S if read_only else _PATIENCE_S)
    while True:
        try:
            if not read_only:
                return _serve(log_dir, read_only=False, allow_network_fs=allow_network_fs)
            holder = current_holder(lock_path)
            if holder is None:
                return _serve_readable(log_dir)
        except PermissionError:
            return _serve_readable(log_dir, or_made=True)
        except LockedError:
            holder = read_holder(lock_path)
        if holder is not None and holder.guarded:
            if read_only:
                break
            raise LockedError(
                f"the store {log_dir} is held by {holder}, which asks who one is: give --collector HOST:PORT with "
                "--tls_ca and --token_file"
            )
        if holder is not None and holder.endpoint and _reachable(holder):
            return LocalCollector(holder.endpoint, store_path, None, read_only=False)
        if time.monotonic() > patience or (holder is not None and not holder.on_this_host):
            break
        time.sleep(0.02)
    if read_only:
        # Its files can be read beside it.
        return _serve_readable(log_dir)
    raise LockedError(
        f"the store {log_dir} is held by {holder or 'another process'}, whose collector does not answer: "
        "stop that process, or give --collector HOST:PORT"
    )


def _reachable(holder: Holder) -> bool:
    if not holder.on_this_host:
        return False
    host, _, port = holder.endpoint.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1.0).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


def _serve(log_dir: Path, *, read_only: bool, allow_network_fs: bool) -> LocalCollector:
    # Imported here: whoever finds another's collector needs none of it.
    from qlog.v1.serving.listening import Listening

    from collector.fold import CODEC
    from collector.server import Server
    from collector.store import open_store

    store = open_store(log_dir, CODEC, read_only=read_only, allow_network_fs=allow_network_fs)
    try:
        server = Server(store, Listening(), reflection=False)
        server.start()
    except BaseException:
        store.close()
        raise
    store.announce(server.endpoint)
    return LocalCollector(server.endpoint, store.path, server, read_only=read_only)


def _serve_readable(log_dir: Path, *, or_made: bool = False) -> LocalCollector:
    try:
        if or_made and not log_dir.is_dir():
            raise StoreAccessError(f"the log directory {log_dir} cannot be made: permission denied; choose another")
        return _serve(log_dir, read_only=True, allow_network_fs=False)
    except PermissionError as error:
        raise StoreAccessError(f"the log directory {log_dir} cannot be read: {error.strerror}") from None


__all__ = ["CollectorError", "LocalCollector", "open_local"]
