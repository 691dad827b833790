"""`collector serve`: the store opened, served until a signal, and closed again."""

import logging
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from qlog.v1.command_line import counted
from qlog.v1.logs import start_logging
from qlog.v1.serving.access import TokenAccess
from qlog.v1.serving.audit import Audit
from qlog.v1.serving.listening import Listening, ListeningError
from qlog.v1.serving.observing import Observer

from collector.auth import ROLES
from collector.errors import ListenError, StoreAccessError, TracesError
from collector.fold import CODEC
from collector.observer import SILENT, StoreObserver
from collector.server import Server
from collector.store import Store, open_store

if TYPE_CHECKING:
    from qlog.v1.serving.traces import Tracing

logger = logging.getLogger(__name__)

# How often a sender is heard of that has nothing to say.
_HEARD_OF_S = 30.0
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
    metrics_host: str
    metrics_port: int | None
    otlp_endpoint: str | None


def serve_until_stopped(options: ServeOptions) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP reads tokens again.

    Raises:
        CollectorError: it cannot start.
    """
    # Blocked in this thread and all that it starts, and waited for below: a handler would run between any two
    # instructions of this thread, where it can take no lock.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
    try:
        start_logging("collector", options.log_format, options.log_level)
        if options.lease_s <= _HEARD_OF_S:
            logger.warning(
                "--lease_s %g is not longer than the %g s after which a sender is heard of again: experiments that run "
                "will be recorded as LOST; give at least %g",
                options.lease_s,
                _HEARD_OF_S,
                2 * _HEARD_OF_S,
            )
        _serve(options)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(options: ServeOptions) -> None:
    metering = None
    store_metrics = None
    if options.metrics_port is not None:
        # Imported where it is asked for.
        from qlog.v1.serving.metering import Metering

        from collector.metrics import StoreMetrics

        metering = Metering("collector", ROLES)
        store_metrics = StoreMetrics(metering.registry)
    tracing = _traced(options)
    store = _opened(options, SILENT if store_metrics is None else store_metrics.observer)
    observers: list[Observer] = [Audit(ROLES)]
    observers += [] if metering is None else [metering.calls]
    observers += [] if tracing is None else [tracing]
    try:
        server = Server(store, options.listening, reflection=True, observers=observers)
        if metering is not None and store_metrics is not None and options.metrics_port is not None:
            store_metrics.watch(store, server.gate)
            metering.serve(options.metrics_host, options.metrics_port, options.listening, server.access)
    except ListeningError as error:
        store.close()
        raise ListenError(str(error)) from None
    except BaseException:
        store.close()
        raise
    server.start()
    store.announce(server.local_endpoint, guarded=options.listening.tls or options.listening.asks)
    index = store.index()
    corrupt = f" ({index.corrupt_count()} corrupt)" if index.corrupt_count() else ""
    held = counted(index.count(), "experiment")
    click.echo(f"collector: listening on {server.endpoint}, store {store.path}, {held}{corrupt}")
    if metering is not None:
        click.echo(f"collector: metrics at {metering.url}")
    sys.stdout.flush()
    while signal.sigwait(_WAITED) == signal.SIGHUP:
        if isinstance(server.access, TokenAccess):
            server.access.reload()
    logger.info("stopping")
    server.stop()
    if metering is not None:
        metering.stop()
    if tracing is not None:
        tracing.stop()


def _traced(options: ServeOptions) -> "Tracing | None":
    from qlog.v1.serving.traces import Tracing, TracingError, traces_are_asked_for

    if not traces_are_asked_for(options.otlp_endpoint):
        return None
    try:
        return Tracing("collector", options.otlp_endpoint)
    except TracingError as error:
        raise TracesError(str(error)) from None


def _opened(options: ServeOptions, observer: StoreObserver) -> Store:
    directory = options.log_dir
    try:
        return open_store(
            directory,
            CODEC,
            allow_network_fs=options.allow_network_fs,
            lease_s=options.lease_s,
            observer=observer,
        )
    except PermissionError as error:
        raise StoreAccessError(
            f"the log directory {directory} cannot be written: {error.strerror}; choose another with --log_dir"
        ) from None


__all__ = ["ServeOptions", "serve_until_stopped"]
