"""The command line: `collector serve`."""

import logging
import math
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from qlog.v1.command_line import counted, listen_options, refusal, version_option

from collector.errors import CollectorError, ListenError, StoreAccessError
from collector.lease import DEFAULT_LEASE_S

if TYPE_CHECKING:
    from qlog.v1.serving.listening import Listening

_ENDS = (signal.SIGTERM, signal.SIGINT)
_WAITED = (*_ENDS, signal.SIGHUP)
_DEFAULT_LOG_DIR = "logs"
_LEASES_S = (1.0, 366 * 86400.0)
_LOG_DIR_HELP = "Directory of the store (QLOG_LOG_DIR).  [default: logs]"
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def _number(_context: click.Context, _parameter: click.Parameter, value: float) -> float:
    if math.isnan(value):  # Within any range, by comparison.
        raise click.BadParameter("nan is no number of seconds")
    return value


@click.group(
    epilog="""\b
Examples:
  collector serve
  collector serve --log_dir /var/lib/qlog --port 50551
  collector serve --host 0.0.0.0 --insecure""",
    context_settings=_CONTEXT,
)
@click.option("log_dir", "--log_dir", "--log-dir", metavar="DIR", help=_LOG_DIR_HELP)
@version_option("collector")
@click.pass_context
def cli(context: click.Context, log_dir: str | None) -> None:
    """The central store of quantization experiments: takes records, serves lists, comparisons and live views."""
    context.obj = log_dir


@cli.command(
    epilog="""\b
Examples:
  collector serve                                 on 127.0.0.1:50551, the store in ./logs
  collector serve --port 0                        any free port, told on the first line
  collector serve --log_dir /var/lib/qlog --lease_s 3600
  collector serve --host 0.0.0.0 --tls_cert host.pem --tls_key host.key --token_file tokens
  collector serve --host 0.0.0.0 --insecure       other machines too, unencrypted, without tokens

\b
Without TLS and tokens only this machine is listened to. A token file has a line for each token, as
`writer gpu1 TOKEN` or `reader,admin ann TOKEN`, and mode 0600; it is read again when it changes and on SIGHUP.
A reader queries, a writer appends, an admin does everything."""
)
@listen_options(50551)
@click.option("log_dir", "--log_dir", "--log-dir", metavar="DIR", help=_LOG_DIR_HELP)
@click.option(
    "allow_network_fs",
    "--allow_network_fs",
    "--allow-network-fs",
    is_flag=True,
    help="Keep the store on a network file system, whose locks and syncs cannot be relied on.",
)
@click.option(
    "lease_s",
    "--lease_s",
    "--lease-s",
    type=click.FloatRange(*_LEASES_S),
    metavar="SECONDS",
    default=DEFAULT_LEASE_S,
    show_default=True,
    callback=_number,
    help="An experiment that is not heard of for so long is recorded as LOST; one that runs is heard of every 30 s.",
)
@click.pass_obj
def serve(
    group_log_dir: str | None, /, log_dir: str | None, allow_network_fs: bool, lease_s: float, **listening: Any
) -> None:
    """Own the store of a directory and serve it, until SIGTERM or SIGINT."""
    # gRPC's own lines about a busy port say no more than ours. To be set before it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from qlog.v1.serving.listening import Listening, ListeningError, OpenListeningError

    where = Listening(**listening)
    try:
        where.check()
    except OpenListeningError as error:
        raise click.UsageError(str(error)) from None
    except ListeningError as error:
        raise ListenError(str(error)) from None
    directory = Path(log_dir or group_log_dir or os.environ.get("QLOG_LOG_DIR") or _DEFAULT_LOG_DIR)
    # Blocked in this thread and all that it starts, and waited for below: a handler would run between any two
    # instructions of this thread, where it can take no lock.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
    try:
        _serve(where, directory, allow_network_fs=allow_network_fs, lease_s=lease_s)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(listening: "Listening", directory: Path, *, allow_network_fs: bool, lease_s: float) -> None:
    from qlog.v1.serving.access import TokenAccess

    from collector.fold import CODEC
    from collector.server import Server
    from collector.store import open_store

    try:
        store = open_store(directory, CODEC, allow_network_fs=allow_network_fs, lease_s=lease_s)
    except PermissionError as error:
        raise StoreAccessError(
            f"the log directory {directory} cannot be written: {error.strerror}; choose another with --log_dir"
        ) from None
    try:
        server = Server(store, listening, reflection=True)
    except BaseException:
        store.close()
        raise
    server.start()
    store.announce(server.local_endpoint, guarded=listening.tls or listening.asks)
    index = store.index()
    corrupt = f" ({index.corrupt_count()} corrupt)" if index.corrupt_count() else ""
    held = counted(index.count(), "experiment")
    click.echo(f"collector: listening on {server.endpoint}, store {store.path}, {held}{corrupt}")
    sys.stdout.flush()
    while signal.sigwait(_WAITED) == signal.SIGHUP:
        if isinstance(server.access, TokenAccess):
            server.access.reload()
    server.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: those after the program's name; None: those of the process.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    logging.basicConfig(format="collector: %(levelname)s: %(message)s", level=logging.WARNING)
    try:
        cli.main(args=None if arguments is None else list(arguments), prog_name="collector", standalone_mode=False)
    except click.ClickException as error:
        return refusal(error, "collector", _complain)
    except CollectorError as error:
        _complain(str(error))
        return 1
    except (click.Abort, KeyboardInterrupt):
        return 130
    return 0


def _complain(text: str) -> None:
    click.echo(f"collector: {' '.join(text.split())}", err=True)


if __name__ == "__main__":
    sys.exit(main())
