"""Settings of a server from options, the environment, a file in TOML, and defaults, in this order of weight.

`configurable` makes a click command so; `config_command` is the verb that shows what came from where. A file's keys are
the options' names: `port = 50551`, `token_file = "/etc/qlog/tokens"`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from qlog.v1.escaping import escape, harmless_json

_MOST_BYTES = 1 << 20
_FILE = "config"


class Origin(StrEnum):
    """Where a setting comes from; the first that has it counts."""

    OPTION = "option"
    ENVIRONMENT = "environment"
    FILE = "file"
    DEFAULT = "default"


_ORIGINS: Mapping[ParameterSource, Origin] = {
    ParameterSource.COMMANDLINE: Origin.OPTION,
    ParameterSource.ENVIRONMENT: Origin.ENVIRONMENT,
    ParameterSource.DEFAULT_MAP: Origin.FILE,
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as it counts.

    Attributes:
        name: of its option, without the dashes; of its key in a file.
        value: None: it has none.
        source: the option, the variable or the file that it comes from; empty for a default.
        variable: of the environment.
    """

    name: str
    value: object
    origin: Origin
    source: str
    variable: str


def configurable(command: click.Command, prefix: str) -> click.Command:
    """Give each option of a command a variable, PREFIX_NAME where it has none, and the command --config.

    Args:
        command: all its options are settings.
        prefix: of variables, as QLOG_COLLECTOR.
    """
    file = click.Option(
        ["--config"],
        metavar="FILE",
        is_eager=True,
        expose_value=False,
        callback=_read_file,
        help="Settings in TOML, as `port = 50551`: below options and variables, above defaults.",
    )
    command.params.insert(0, file)
    for option in [*settings_options_of(command), file]:
        if not option.envvar:
            option.envvar = f"{prefix}_{option.name}".upper()
            option.show_envvar = True
    return command


def settings_options_of(command: click.Command) -> list[click.Option]:
    """The options that are settings: not --config itself, nor --help."""
    options = [option for option in command.params if isinstance(option, click.Option)]
    return [option for option in options if not option.is_eager]


def _read_file(context: click.Context, _option: click.Parameter, path: str | None) -> None:
    if path:
        context.meta[_FILE] = path
        context.default_map = values_of(Path(path), context)


def values_of(path: Path, context: click.Context) -> dict[str, Any]:
    """The settings of a file, each checked as its option's value would be.

    Args:
        path: of the file.
        context: of the command whose options are the keys.

    Raises:
        click.UsageError: the file cannot be used; names it and the key.
    """
    options = {str(option.name): option for option in settings_options_of(context.command)}
    found = _parsed(path, context)
    for key, value in found.items():
        if key not in options:
            near = get_close_matches(key, options, 1)
            hint = f"; is {near[0]!r} meant?" if near else f": there are {', '.join(options)}"
            raise click.UsageError(f"{path}: no setting '{escape(key)}'{hint}", context)
        option = options[key]
        if wrong := _wrong_type(option, value):
            raise click.UsageError(f"{path}: {key} has to be {wrong}, not {_shown_toml(value)}", context)
        try:
            option.type_cast_value(context, value)
        except click.BadParameter as error:
            raise click.UsageError(f"{path}: {key}: {escape(error.message)}", context) from None
    # What is empty is not given, as everywhere.
    return {key: value for key, value in found.items() if value not in ("", [])}


def _parsed(path: Path, context: click.Context) -> dict[str, Any]:
    import tomllib

    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise click.UsageError(f"the configuration {escape(str(path))} cannot be read: {reason}", context) from None
    if len(content) > _MOST_BYTES:
        raise click.UsageError(f"the configuration {path} is larger than {_MOST_BYTES} bytes", context)
    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "nested too deep, or no UTF-8"
        raise click.UsageError(f"the configuration {path} is no TOML: {escape(reason)}", context) from None


def _wrong_type(option: click.Option, value: object) -> str:
    """What a value has to be, where it is something else: TOML has types, and 1.5 is no port."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if option.is_flag:
        return "" if isinstance(value, bool) else "true or false"
    if option.multiple:
        right = isinstance(value, list) and all(isinstance(item, str) for item in value)
        return "" if right else "a list of strings"
    if isinstance(option.type, click.types.IntParamType):
        return "" if number and not isinstance(value, float) else "a whole number"
    if isinstance(option.type, click.types.FloatParamType):
        return "" if number else "a number"
    return "" if isinstance(value, str) else "a string"


def _shown_toml(value: object) -> str:
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    return escape(json.dumps(value) if isinstance(value, bool) else repr(value))[:80]


def settings(context: click.Context, elsewhere: Sequence[Setting] = ()) -> list[Setting]:
    """The settings of a command that was parsed, in the order of its options.

    Args:
        context: of the command.
        elsewhere: settings whose values the command's parameters do not have.
    """
    known = {setting.name: setting for setting in elsewhere}
    return [
        known.get(str(option.name)) or _setting(context, option)
        for option in settings_options_of(context.command)
        if option.name in known or option.expose_value
    ]


def _setting(context: click.Context, option: click.Option) -> Setting:
    name = str(option.name)
    value = context.params.get(name)
    source = context.get_parameter_source(name)
    origin = _ORIGINS.get(source, Origin.DEFAULT) if source is not None else Origin.DEFAULT
    return setting(context, name, value, origin, str(option.envvar))


def setting(context: click.Context, name: str, value: object, origin: Origin, variable: str) -> Setting:
    """A setting with the name of where it comes from."""
    sources = {
        Origin.OPTION: f"--{name}",
        Origin.ENVIRONMENT: variable,
        Origin.FILE: str(context.meta.get(_FILE, "")),
        Origin.DEFAULT: "",
    }
    return Setting(name, _plain(value), origin, sources[origin], variable)


def _plain(value: object) -> object:
    """A value as JSON has it; passwords in the address of a service are left out."""
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    scheme, mark, rest = str(value).partition("://")
    authority, slash, path = rest.partition("/")
    if mark and "@" in authority:
        return f"{scheme}://***@{authority.rpartition('@')[2]}{slash}{path}"
    return str(value)


def config_command(
    program: str,
    command: click.Command,
    check: Callable[[click.Context], object],
    elsewhere: Callable[[click.Context], Sequence[Setting]] = lambda _context: (),
) -> click.Command:
    """The verb `config`: takes what the command takes, and shows each setting with where it comes from.

    Args:
        program: that has the verb.
        command: of the server.
        check: refuses what the command would refuse.
        elsewhere: see `settings`.
    """

    def show(form: str, **_values: Any) -> None:
        context = click.get_current_context()
        found = settings(context, elsewhere(context))
        click.echo(_as_json(found) if form == "json" else _as_table(found))
        check(context)

    form = click.Option(
        ["form", "--format"],
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        is_eager=True,
        help="How they are shown.",
    )
    return click.Command(
        "config",
        params=[*command.params, form],
        callback=show,
        context_settings=command.context_settings,
        help="Show each setting of `serve`, and where it comes from: option, environment, file, default.",
        epilog=f"""\b
It takes the options of `serve`, and fails where that would refuse them. Tokens and keys are in files, and not shown.

\b
Examples:
  {program} config
  {program} config --config /etc/qlog/{program}.toml --format json""",
    )


def _as_json(found: Sequence[Setting]) -> str:
    return harmless_json(json.dumps([asdict(setting) for setting in found], indent=2))


def _as_table(found: Sequence[Setting]) -> str:
    rows = [("setting", "value", "from"), *((s.name, _shown(s.value), f"{s.origin} {s.source}".strip()) for s in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {origin}" for name, value, origin in rows)


def _shown(value: object) -> str:
    match value:
        case None | []:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list():
            return escape(", ".join(map(str, value)))
        case _:
            return escape(str(value))


__all__ = [
    "Origin",
    "Setting",
    "config_command",
    "configurable",
    "setting",
    "settings",
    "settings_options_of",
    "values_of",
]
