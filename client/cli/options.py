"""The options and arguments that commands share, and how their answers are written."""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import click
from click.core import ParameterSource
from qlog.v1.addresses import ADDRESS_FORM, is_address

from client.documents import Output
from client.labels import LANGUAGES, language_of, speak
from client.render import Format, write
from client.settings import (
    DEFAULT_LOG_DIR,
    DEFAULT_QUANTIZER,
    DEFAULT_TIMEOUT_S,
    Settings,
    settings_from,
)

_Command = TypeVar("_Command", bound=Callable[..., Any])
NEGATIVE_NUMBER = re.compile(r"-[0-9]+", re.ASCII)
_SOURCES: Mapping[ParameterSource, str] = {
    ParameterSource.COMMANDLINE: "given",
    ParameterSource.ENVIRONMENT: "environment",
}

# For commands with REF arguments: -1 is no option. What else begins with a dash `references` refuses.
REF_CONTEXT: Mapping[str, Any] = {"ignore_unknown_options": True}


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Keep what was given: what stands after the verb is read later than what stands before it, and wins.

    What is empty, such as a variable of the shell that is not set, is not given.
    """
    name = param.name or ""
    source = ctx.get_parameter_source(name)
    if value != "" and source is not None and source in _SOURCES:
        ctx.ensure_object(dict).setdefault(_SOURCES[source], {})[name] = value


def _remember_address(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value and not is_address(value):
        raise click.BadParameter(f"{value!r} is no address: write it as {ADDRESS_FORM}")
    _remember(ctx, param, value)


def shared_options(command: _Command, *, environment: bool = False, own_format: bool = False) -> _Command:
    """Decorate a command with the options that every command has.

    Args:
        command: to decorate.
        environment: with their variables.
        own_format: the command has a --format of its own.
    """
    options = (
        click.option(
            "--collector",
            metavar="HOST:PORT",
            envvar="QLOG_COLLECTOR" if environment else None,
            callback=_remember_address,
            expose_value=False,
            help="The collector to ask (QLOG_COLLECTOR); without it the local store in --log_dir is read.",
        ),
        click.option(
            "--log_dir",
            "--log-dir",
            metavar="DIR",
            envvar="QLOG_LOG_DIR" if environment else None,
            callback=_remember,
            expose_value=False,
            help=f"The local store (QLOG_LOG_DIR).  [default: {DEFAULT_LOG_DIR}]",
        ),
        click.option(
            "--quantizer",
            metavar="HOST:PORT",
            envvar="QLOG_QUANTIZER" if environment else None,
            callback=_remember_address,
            expose_value=False,
            help=f"The quantizer that runs jobs (QLOG_QUANTIZER).  [default: {DEFAULT_QUANTIZER}]",
        ),
        click.option(
            "--lang",
            type=click.Choice(LANGUAGES),
            envvar="QLOG_LANG" if environment else None,
            callback=_remember,
            expose_value=False,
            help="The language of tables (QLOG_LANG).  [default: that of the locale, else en]",
        ),
        click.option(
            "--timeout",
            type=click.FloatRange(min=0, min_open=True, max=86400),
            metavar="SECONDS",
            callback=_remember,
            expose_value=False,
            help=f"How long to wait for each answer.  [default: {DEFAULT_TIMEOUT_S:g}]",
        ),
        *_credential_options(environment=environment),
        click.option(
            "--format",
            type=click.Choice([form.value for form in Format]),
            callback=_remember,
            expose_value=False,
            help=f"How the answer is written.  [default: {Format.TABLE.value}]",
        ),
    )
    for option in reversed(options[:-1] if own_format else options):
        command = option(command)
    return command


def _credential_options(*, environment: bool) -> Iterator[Callable[[Any], Any]]:
    helps = {
        "tls_ca": "Encrypt, and trust servers of these authorities; `system`: of those known anyway (QLOG_TLS_CA).",
        "tls_cert": "Certificate of your own, for servers that ask for one (QLOG_TLS_CERT).",
        "tls_key": "The key of that certificate (QLOG_TLS_KEY).",
        "token_file": "The token that servers ask for (QLOG_TOKEN_FILE).",
    }
    for name, text in helps.items():
        yield click.option(
            name,
            f"--{name}",
            f"--{name.replace('_', '-')}",
            metavar="FILE",
            envvar=f"QLOG_{name.upper()}" if environment else None,
            callback=_remember,
            expose_value=False,
            help=text,
        )
    yield click.option(
        "--insecure",
        is_flag=True,
        callback=_remember,
        expose_value=False,
        help="Send the token unencrypted, though it leaves this machine.",
    )


def settings_of(ctx: click.Context) -> Settings:
    """The settings for what was typed so far."""
    remembered: Mapping[str, Mapping[str, object]] = ctx.ensure_object(dict)
    settings = settings_from(remembered.get("given", {}), remembered.get("environment", {}))
    both = {**remembered.get("environment", {}), **remembered.get("given", {})}
    speak(str(both.get("lang") or language_of(os.environ)))
    if {"collector", "log_dir"} <= set(remembered.get("given", {})):
        note("--log_dir is not used where --collector names a server")
    return settings


def references(ctx: click.Context, _param: click.Parameter, value: str | Sequence[str] | None) -> Any:
    """Check REF arguments: -1 is one, --colums is a mistyped option."""
    for ref in (value,) if isinstance(value, str) else value or ():
        if ref.startswith("-") and not NEGATIVE_NUMBER.fullmatch(ref):
            raise click.NoSuchOption(ref, ctx=ctx, possibilities=_similar(ctx, ref))
        if not ref.strip():
            raise click.BadParameter("an empty REF: give a number, -1 for the last, an id or the beginning of one")
    return value


def reference_list(ctx: click.Context, param: click.Parameter, value: Sequence[str]) -> tuple[str, ...]:
    """Check REF arguments of which several may stand in one word, as 0,1."""
    refs = tuple(part.strip() for word in value for part in word.split(",") if part.strip())
    references(ctx, param, refs)
    if not refs:
        raise click.UsageError("give a REF: a number, -1 for the last, an id or the beginning of one", ctx=ctx)
    return refs


def _similar(ctx: click.Context, wanted: str) -> list[str]:
    from difflib import get_close_matches

    names = [name for param in ctx.command.get_params(ctx) for name in param.opts if name.startswith("-")]
    return get_close_matches(wanted, names)


def answer(output: Output, settings: Settings) -> None:
    """Write an answer to the standard output in the form that was asked for."""
    write(output, settings.form, sys.stdout)
    # What is said afterwards, on the standard error, comes after it.
    sys.stdout.flush()


def note(text: str) -> None:
    """Tell the user something beside the answer, in one line on the standard error."""
    from client.text import escape

    click.echo(f"qlog: {escape(text)}", err=True)


__all__ = [
    "NEGATIVE_NUMBER",
    "REF_CONTEXT",
    "answer",
    "note",
    "reference_list",
    "references",
    "settings_of",
    "shared_options",
]
