"""The command-line options of an experiment, built from ExperimentSpec's descriptor.

`quantizer run` and `qlog submit` both use this table, so that an option is named, explained and defaulted in
`spec.proto` alone. Every option is accepted with `_` and with `-`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import click
from google.protobuf.descriptor import FieldDescriptor

from qlog.v1 import spec_pb2

# Of OptionInfo.unsupported: whatever the value is.
EVERY_VALUE = "*"


class _Whole(click.ParamType):  # type: ignore[type-arg]  # generic in later versions of click only
    """A whole number of so many bits. click's own range type would show users the range."""

    name = "whole number"

    def __init__(self, bits: int) -> None:
        self._limit = 1 << (bits - 1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number that was typed."""
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is not a whole number", param, ctx)
        if not -self._limit <= number < self._limit:
            self.fail(f"{value} is too large", param, ctx)
        return number


class SpecOption(click.Option):
    """An option of an experiment; `group`: the heading that --help lists it under."""

    def __init__(self, *args: Any, group: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.group = group


class SpecCommand(click.Command):
    """A command with `spec_options`: --help lists them by group, and the command's own options after them."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, a heading over each group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        own: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            shown = param.get_help_record(ctx)
            if shown is not None:
                (groups.setdefault(param.group, []) if isinstance(param, SpecOption) else own).append(shown)
        for heading, options in (*groups.items(), ("Other options", own)):
            with formatter.section(heading):
                formatter.write_dl(options)


_CLICK_TYPES: "Mapping[int, click.ParamType[Any] | type]" = {
    FieldDescriptor.TYPE_STRING: click.STRING,
    FieldDescriptor.TYPE_INT32: _Whole(32),
    FieldDescriptor.TYPE_INT64: _Whole(64),
}


# Fields are Any here: the implementation's descriptors are of another class than the ones with types.
def _info(field: Any) -> Any:
    return field.GetOptions().Extensions[spec_pb2.option_info]


def _help(info: Any) -> str:
    if not info.unsupported:
        return str(info.help)
    values = "" if EVERY_VALUE in info.unsupported else f": {', '.join(info.unsupported)}"
    return f"{info.help}  [not supported yet{values}]"


def _click_option(field: Any) -> Callable[[Any], Any]:
    info = _info(field)
    underscored, dashed = f"--{field.name}", f"--{field.name.replace('_', '-')}"
    # The first name is the one that --help leads with; where there is no underscore the two are one.
    names = [field.name, *dict.fromkeys((underscored, dashed))]
    if field.type == FieldDescriptor.TYPE_BOOL:
        return click.option(*names, cls=SpecOption, group=info.group, is_flag=True, default=False, help=_help(info))
    kind = click.Choice(list(info.choices)) if info.choices else _CLICK_TYPES[field.type]
    return click.option(
        *names,
        cls=SpecOption,
        group=info.group,
        type=kind,
        default=info.default or None,
        show_default=bool(info.default),
        metavar=info.metavar or None,
        help=_help(info),
    )


def spec_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a click command (a `SpecCommand`) with the MODEL argument and every option of an experiment.

    The command receives them as keyword arguments named as ExperimentSpec's fields; `spec_from_options` makes the
    message of them.
    """
    fields = [field for field in spec_pb2.ExperimentSpec.DESCRIPTOR.fields if field.name != "model"]
    for field in reversed(fields):
        command = _click_option(field)(command)
    return click.argument("model", metavar="MODEL")(command)


def spec_from_options(options: Mapping[str, Any]) -> spec_pb2.ExperimentSpec:
    """The message for what `spec_options` collected; entries of `options` that are no field of it are left alone."""
    fields = {field.name for field in spec_pb2.ExperimentSpec.DESCRIPTOR.fields}
    given = {name: value for name, value in options.items() if name in fields and value is not None}
    return spec_pb2.ExperimentSpec(**given)


def default_of(name: str) -> str:
    """The default of one option, as one types it; empty where it has none.

    Raises:
        KeyError: no such option.
    """
    return str(_info(spec_pb2.ExperimentSpec.DESCRIPTOR.fields_by_name[name]).default)


__all__ = ["EVERY_VALUE", "SpecCommand", "SpecOption", "default_of", "spec_from_options", "spec_options"]
