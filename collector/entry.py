"""The command line: `collector serve` and `collector config`."""

import os
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from qlog.v1.command_line import (
    Seconds,
    complain,
    listen_options,
    log_options,
    metrics_options,
    refusal,
    traces_option,
    version_option,
)
from qlog.v1.configuration import config_command, configurable
from qlog.v1.escaping import plain_logging

from collector.errors import CollectorError, ListenError
from collector.fsck_command import fsck_command
from collector.lease import DEFAULT_LEASE_S

if TYPE_CHECKING:
    from qlog.v1.serving.listening import Listening

_DEFAULT_LOG_DIR = "logs"
_LEASES_S = (1.0, 366 * 86400.0)
_LOG_DIR_HELP = "Directory of the store."
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(
    epilog="""\b
Examples:
  collector serve
  collector serve --log_dir /var/lib/qlog --port 50551
  collector serve --host 0.0.0.0 --insecure
  collector config --config collector.toml
  collector fsck --log_dir /var/lib/qlog""",
    context_settings=_CONTEXT,
)
@click.option("log_dir", "--log_dir", "--log-dir", metavar="DIR", help=f"{_LOG_DIR_HELP}  [default: logs]")
@version_option("collector")
@click.pass_context
def cli(context: click.Context, log_dir: str | None) -> None:
    """The central store of quantization experiments: takes records, serves lists, comparisons and live views."""
    context.obj = log_dir


def _log_dir(context: click.Context, option: click.Parameter, value: str) -> str:
    """What stands after the verb, else what stands before it, else the variable, the file, the default."""
    source = context.get_parameter_source("log_dir")
    if context.obj and not (value and source is ParameterSource.COMMANDLINE):
        context.set_parameter_source("log_dir", ParameterSource.COMMANDLINE)
        return str(context.obj)
    return value or str(option.value_from_envvar(context) or _DEFAULT_LOG_DIR)


_log_dir_option = click.option(
    "log_dir",
    "--log_dir",
    "--log-dir",
    metavar="DIR",
    envvar="QLOG_LOG_DIR",
    show_envvar=True,
    default=_DEFAULT_LOG_DIR,
    show_default=True,
    callback=_log_dir,
    help=_LOG_DIR_HELP,
)


@click.command(
    epilog="""\b
Examples:
  collector serve                                 on 127.0.0.1:50551, the store in ./logs
  collector serve --port 0                        any free port, told on the first line
  collector serve --log_dir /var/lib/qlog --lease_s 3600
  collector serve --config /etc/qlog/collector.toml --log_format json
  collector serve --metrics_port 9464             metrics for Prometheus
  collector serve --host 0.0.0.0 --tls_cert host.pem --tls_key host.key --token_file tokens
  collector serve --host 0.0.0.0 --insecure       other machines too, unencrypted, without tokens

\b
Without TLS and tokens only this machine is listened to. A token file has a line for each token, as
`writer gpu1 TOKEN` or `reader,admin ann TOKEN`, and mode 0600; it is read again when it changes and on SIGHUP.
A reader queries, a writer appends, an admin does everything.""",
    context_settings=_CONTEXT,
)
@listen_options(50551)
@_log_dir_option
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
    type=Seconds(*_LEASES_S),
    metavar="SECONDS",
    default=DEFAULT_LEASE_S,
    show_default=True,
    help="An experiment that is not heard of for so long is recorded as LOST; one that runs is heard of every 30 s.",
)
@metrics_options
@traces_option
@log_options()
def serve(log_dir: str, allow_network_fs: bool, lease_s: float, **rest: Any) -> None:
    """Own the store of a directory and serve it, until SIGTERM or SIGINT."""
    where = _checked(rest)
    from collector.serve import ServeOptions, serve_until_stopped

    serve_until_stopped(
        ServeOptions(
            listening=where,
            log_dir=Path(log_dir),
            allow_network_fs=allow_network_fs,
            lease_s=lease_s,
            log_format=rest["log_format"],
            log_level=rest["log_level"],
            metrics_host=rest["metrics_host"],
            metrics_port=rest["metrics_port"],
            otlp_endpoint=rest["otlp_endpoint"] or None,
        )
    )


def _checked(values: dict[str, Any]) -> "Listening":
    """Where to listen, refused where it may not be listened.

    Raises:
        click.UsageError: others would reach a server that asks nobody who they are.
        ListenError: there is no such address.
    """
    # gRPC's own lines about a busy port say no more than ours. To be set before it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from qlog.v1.serving.listening import Listening, ListeningError, OpenListeningError

    where = Listening(**{field.name: values[field.name] for field in fields(Listening)})
    try:
        where.check()
        if values["metrics_port"] is not None:
            replace(where, host=values["metrics_host"]).check(option="--metrics_host")
    except OpenListeningError as error:
        raise click.UsageError(str(error)) from None
    except ListeningError as error:
        raise ListenError(str(error)) from None
    return where


cli.add_command(fsck_command(_log_dir_option))
cli.add_command(configurable(serve, "QLOG_COLLECTOR"))
cli.add_command(config_command("collector", serve, lambda context: _checked(context.params)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: those after the program's name; None: those of the process.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    plain_logging("collector: ")
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
    complain("collector", text, prefix="collector: ")


if __name__ == "__main__":
    sys.exit(main())
