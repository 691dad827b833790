"""`--log_dir`, `--collector` and what that asks for: every verb takes them, and they may stand before or after it."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from qlog.v1.configuration import Origin, Setting, setting
from qlog.v1.credentials import VARIABLES, Credentials, CredentialsError, credentials_from

from quantizer.endpoints import check_address
from quantizer.errors import SpecError, Violation

DEFAULT_LOG_DIR = "logs"
_VARIABLES = {"log_dir": "QLOG_LOG_DIR", "collector": "QLOG_COLLECTOR", **VARIABLES}
# Where what a configuration file says is kept, beside what was given on the command line.
_FILE = "quantizer.settings"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where records go. `collector` None: the local store in `log_dir`."""

    log_dir: Path
    collector: str | None
    credentials: Credentials | None = None

    @classmethod
    def of(cls, context: click.Context) -> "Settings":
        """What the command line says, else the environment, else a configuration file, else the defaults.

        Raises:
            SpecError: the collector's address is none.
        """
        found = {name: value for name, value, _ in _looked_up(context)}
        log_dir, collector = found.pop("log_dir"), found.pop("collector") or None
        violation = check_address(collector) if collector is not None else None
        if "\0" in log_dir:
            violation = Violation("log_dir", "--log_dir holds a NUL character")
        given: dict[str, str] = context.find_root().ensure_object(dict)
        credentials = credentials_from(found | {"insecure": given.get("insecure", "")})
        if violation is None and collector is not None:
            try:
                credentials.check(collector)
            except CredentialsError as error:
                violation = Violation("credentials", str(error))
        if violation is not None:
            raise SpecError((violation,))
        return cls(Path(log_dir), collector, credentials)


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """The verb's option, which is read later, wins over the one before the verb; variables are looked up at the end."""
    source = context.get_parameter_source(str(parameter.name))
    if value is None or value is False or source is ParameterSource.ENVIRONMENT:
        return
    name = str(parameter.name).removeprefix("collector_")
    if source is ParameterSource.DEFAULT_MAP:
        context.meta.setdefault(_FILE, {})[name] = value
    else:
        context.find_root().ensure_object(dict)[name] = value


def _looked_up(context: click.Context) -> Iterator[tuple[str, str, Origin]]:
    """Each setting's value and origin; empty where it has none."""
    given: dict[str, str] = context.find_root().ensure_object(dict)
    file: dict[str, str] = context.meta.get(_FILE, {})
    for name, variable in _VARIABLES.items():
        default = DEFAULT_LOG_DIR if name == "log_dir" else ""
        for origin, value in (
            (Origin.OPTION, given.get(name)),
            (Origin.ENVIRONMENT, os.environ.get(variable)),
            (Origin.FILE, file.get(name)),
            (Origin.DEFAULT, default),
        ):
            if value or origin is Origin.DEFAULT:
                yield name, value or "", origin
                break


def looked_up(context: click.Context) -> list[Setting]:
    """The settings of `quantizer serve` that are looked up here, under its options' names."""
    return [
        setting(context, f"collector_{name}" if name in VARIABLES else name, value or None, origin, _VARIABLES[name])
        for name, value, origin in _looked_up(context)
    ]


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a click command or group with both options."""
    command = click.option(
        "collector",
        "--collector",
        metavar="HOST:PORT",
        envvar=_VARIABLES["collector"],
        expose_value=False,
        callback=_remember,
        help="Record with this collector.  [env: QLOG_COLLECTOR; default: the local store in --log_dir]",
    )(command)
    return click.option(
        "log_dir",
        "--log_dir",
        "--log-dir",
        metavar="DIR",
        envvar=_VARIABLES["log_dir"],
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
                envvar=VARIABLES[name],
                expose_value=False,
                callback=_remember,
                help=f"{text}  [env: {VARIABLES[name]}]",
            )(command)
        return command

    return decorate


__all__ = ["Settings", "credential_options", "looked_up", "settings_options"]
