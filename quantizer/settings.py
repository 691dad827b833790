"""`--log_dir` and `--collector`, which every verb takes and which may stand before or after it."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from qlog.v1.credentials import VARIABLES, Credentials, CredentialsError, credentials_from

from quantizer.endpoints import check_address
from quantizer.errors import SpecError, Violation

DEFAULT_LOG_DIR = "logs"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where records go. `collector` None: the local store in `log_dir`."""

    log_dir: Path
    collector: str | None
    credentials: Credentials | None = None

    @classmethod
    def of(cls, context: click.Context) -> "Settings":
        """What the command line says, else the environment, else the defaults.

        Raises:
            SpecError: the collector's address is none.
        """
        given: dict[str, str] = context.find_root().ensure_object(dict)
        log_dir = given.get("log_dir") or os.environ.get("QLOG_LOG_DIR") or DEFAULT_LOG_DIR
        collector = given.get("collector") or os.environ.get("QLOG_COLLECTOR") or None
        violation = check_address(collector) if collector is not None else None
        if "\0" in log_dir:
            violation = Violation("log_dir", "--log_dir holds a NUL character")
        credentials = credentials_from(
            {name: os.environ.get(variable, "") for name, variable in VARIABLES.items()}
            | {name: value for name, value in given.items() if value}
        )
        if violation is None and collector is not None:
            try:
                credentials.check(collector)
            except CredentialsError as error:
                violation = Violation("credentials", str(error))
        if violation is not None:
            raise SpecError((violation,))
        return cls(Path(log_dir), collector, credentials)


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """The verb's option, which is read later, wins over the one before the verb."""
    if value is not None and value is not False and parameter.name is not None:
        context.find_root().ensure_object(dict)[parameter.name.removeprefix("collector_")] = value


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a click command or group with both options."""
    command = click.option(
        "collector",
        "--collector",
        metavar="HOST:PORT",
        expose_value=False,
        callback=_remember,
        help="Record with this collector.  [env: QLOG_COLLECTOR; default: the local store in --log_dir]",
    )(command)
    return click.option(
        "log_dir",
        "--log_dir",
        "--log-dir",
        metavar="DIR",
        expose_value=False,
        callback=_remember,
        help="The local store, and the spool of events not sent yet.  [env: QLOG_LOG_DIR; default: logs]",
    )(command)


_HELPS = {
    "tls_ca": "Encrypt, and trust a collector of these authorities; `system`: of those known anyway.",
    "tls_cert": "Certificate of your own, for a collector that asks for one.",
    "tls_key": "The key of that certificate.",
    "token_file": "The token that the collector asks for.",
}


def credential_options(prefix: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a click command with what a collector may ask for; `prefix`: of the options' names."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        if not prefix:
            command = click.option(
                "--insecure",
                is_flag=True,
                expose_value=False,
                callback=_remember,
                help="Send the token unencrypted, though it leaves this machine.",
            )(command)
        for name, text in reversed(_HELPS.items()):
            full = f"{prefix}{name}"
            command = click.option(
                full,
                f"--{full}",
                f"--{full.replace('_', '-')}",
                metavar="FILE",
                expose_value=False,
                callback=_remember,
                help=f"{text}  [env: {VARIABLES[name]}]",
            )(command)
        return command

    return decorate


__all__ = ["Settings", "credential_options", "settings_options"]
