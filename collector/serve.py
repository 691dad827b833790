"""`collector serve`: the store opened, served until a signal, and closed again."""

import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import click
from qlog.v1.command_line import counted
from qlog.v1.logs import start_logging
from qlog.v1.serving.access import TokenAccess
from qlog.v1.serving.audit import Audit
from qlog.v1.serving.listening import Listening

from collector.auth import ROLES
from collector.errors import StoreAccessError
from collector.fold import CODEC
from collector.server import Server
from collector.store import Store, open_store

_ENDS = (signal.SIGTERM, signal.SIGINT)
_WAITED = (*_ENDS, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What `collector serve` was asked for."""

    listening: Listening
    log_dir: Path
    allow_network_fs: bool
    lease_s: float
    log_format: str
    log_level: str


def serve_until_stopped(options: ServeOptions) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP reads tokens again.

    Raises:
        CollectorError: it cannot start.
    """
    start_logging("collector", options.log_format, options.log_level)
    # Blocked in this thread and all that it starts, and waited for below: a handler would run between any two
    # instructions of this thread, where it can take no lock.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
    try:
        _serve(options)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(options: ServeOptions) -> None:
    store = _opened(options)
    try:
        server = Server(store, options.listening, reflection=True, observers=[Audit(ROLES)])
    except BaseException:
        store.close()
        raise
    server.start()
    store.announce(server.local_endpoint, guarded=options.listening.tls or options.listening.asks)
    index = store.index()
    corrupt = f" ({index.corrupt_count()} corrupt)" if index.corrupt_count() else ""
    held = counted(index.count(), "experiment")
    click.echo(f"collector: listening on {server.endpoint}, store {store.path}, {held}{corrupt}")
    sys.stdout.flush()
    while signal.sigwait(_WAITED) == signal.SIGHUP:
        if isinstance(server.access, TokenAccess):
            server.access.reload()
    server.stop()


def _opened(options: ServeOptions) -> Store:
    directory = options.log_dir
    try:
        return open_store(directory, CODEC, allow_network_fs=options.allow_network_fs, lease_s=options.lease_s)
    except PermissionError as error:
        raise StoreAccessError(
            f"the log directory {directory} cannot be written: {error.strerror}; choose another with --log_dir"
        ) from None


__all__ = ["ServeOptions", "serve_until_stopped"]
