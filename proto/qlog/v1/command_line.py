"""What the command lines of the three programs say alike: their version, where they listen, wrong usage, counts."""

import logging
import math
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from qlog.v1.escaping import escape

_Command = TypeVar("_Command", bound=Callable[..., Any])

WRONG_USAGE = 2


def version_option(program: str) -> Callable[[_Command], _Command]:
    """Decorate a command with --version, which prints the program's name and version, as `qlog 0.1.0`."""

    def show(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
        if value and not context.resilient_parsing:
            from importlib.metadata import version

            click.echo(f"{program} {version('qlog-ssm')}")
            context.exit()

    return click.option(
        "--version", is_flag=True, is_eager=True, callback=show, expose_value=False, help="Show the version."
    )


def listen_options(port: int) -> Callable[[_Command], _Command]:
    """Decorate a server's command with --host, --port (this one by default), --insecure, and what makes it safe."""
    options = (
        click.option("--host", metavar="HOST", default="127.0.0.1", show_default=True, help="Address to listen on."),
        click.option(
            "--port",
            type=click.IntRange(0, 65535),
            metavar="PORT",
            default=port,
            show_default=True,
            help="Port to listen on; 0: any free one.",
        ),
        click.option(
            "--insecure",
            is_flag=True,
            help="Accept connections without encryption or without tokens, though other machines reach the address.",
        ),
        click.option(
            "tls_cert", "--tls_cert", "--tls-cert", metavar="FILE", help="The server's certificate, with its chain."
        ),
        click.option("tls_key", "--tls_key", "--tls-key", metavar="FILE", help="The key of that certificate."),
        click.option(
            "tls_client_ca",
            "--tls_client_ca",
            "--tls-client-ca",
            metavar="FILE",
            help="Take only clients with a certificate of one of these authorities.",
        ),
        click.option(
            "token_file",
            "--token_file",
            "--token-file",
            metavar="FILE",
            help="Tokens that clients have to send, a line each: ROLES NAME TOKEN; reader, writer, admin.",
        ),
    )

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


LOG_FORMATS = ("text", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")


def log_options(level: str = "info") -> Callable[[_Command], _Command]:
    """Decorate a command with --log_format and --log_level (this one by default)."""

    def decorate(command: _Command) -> _Command:
        command = click.option(
            "log_level",
            "--log_level",
            "--log-level",
            type=click.Choice(LOG_LEVELS),
            default=level,
            show_default=True,
            help="The least important lines that are logged.",
        )(command)
        return click.option(
            "log_format",
            "--log_format",
            "--log-format",
            type=click.Choice(LOG_FORMATS),
            default="text",
            show_default=True,
            help="How log lines are written, on standard error: for people, or an object of JSON each.",
        )(command)

    return decorate


def metrics_options(command: _Command) -> _Command:
    """Decorate a server's command with --metrics_port and --metrics_host."""
    command = click.option(
        "metrics_host",
        "--metrics_host",
        "--metrics-host",
        metavar="HOST",
        default="127.0.0.1",
        show_default=True,
        help="Address of the metrics; elsewhere than on loopback they take TLS and a reader's token, as calls do.",
    )(command)
    return click.option(
        "metrics_port",
        "--metrics_port",
        "--metrics-port",
        type=click.IntRange(0, 65535),
        metavar="PORT",
        help="Serve metrics for Prometheus at http://HOST:PORT/metrics; 0: any free port.  [default: none]",
    )(command)


def traces_option(command: _Command) -> _Command:
    """Decorate a server's command with --otlp_endpoint."""
    return click.option(
        "otlp_endpoint",
        "--otlp_endpoint",
        "--otlp-endpoint",
        metavar="URL",
        help="Send traces by OTLP over gRPC, as http://HOST:4317; takes the extra otel.  [default: none]",
    )(command)


def refusal(error: click.ClickException, program: str, complain: Callable[[str], object]) -> int:
    """Tell what click refuses; the exit code.

    Args:
        error: of which a command without its verb is answered with the whole help, everything else in one line.
        program: whose --help is named where the error does not know the verb.
        complain: writes one line.
    """
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return error.exit_code
    text = " ".join(error.format_message().split()).replace(". (", " (").rstrip(".")
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else program
        text = f"{text} (see `{path} --help`)"
    complain(text)
    return error.exit_code


def complain(program: str, text: str, *, prefix: str) -> None:
    """Tell in one line why a program ends: after the prefix, or as an entry of its log where that is JSON."""
    line = " ".join(text.split())
    # Whoever has not set up such a log has not imported it.
    logs = sys.modules.get("qlog.v1.logs")
    if logs is not None and logs.logs_json():
        logging.getLogger(program).error(line)
    else:
        click.echo(f"{prefix}{escape(line)}", err=True)


def counted(count: int, noun: str) -> str:
    """A number of things: "1 experiment", "2 experiments"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class Seconds(click.FloatRange):
    """A finite number of seconds within bounds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click does; nan is within any range, by comparison, and refused here."""
        found = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail("nan is no number of seconds", param, ctx)
        return found


__all__ = [
    "LOG_FORMATS",
    "LOG_LEVELS",
    "WRONG_USAGE",
    "Seconds",
    "complain",
    "counted",
    "listen_options",
    "log_options",
    "metrics_options",
    "refusal",
    "traces_option",
    "version_option",
]
