"""The options of an experiment: what --help says of them is what the quantizer does, and the same in both programs."""

import re
from collections.abc import Iterator
from typing import Any

import click
import pytest
from qlog.v1.options import EVERY_VALUE
from qlog.v1.spec_pb2 import ExperimentSpec, option_info

from client.cli.submit import command as submit
from quantizer.entry import run
from quantizer.errors import SpecError
from quantizer.wire_spec import config_of

REFUSAL = "is not supported yet"
# The implementation's descriptors are of another class than the ones with types.
OPTIONS: dict[str, Any] = {field.name: field for field in ExperimentSpec.DESCRIPTOR.fields if field.name != "model"}


def info(name: str) -> Any:
    return OPTIONS[name].GetOptions().Extensions[option_info]


def values(name: str) -> Iterator[Any]:
    """Values to try: all where there are few, else one that is no default."""
    field, alternatives = OPTIONS[name], info(name).metavar.split("|")
    if field.type == field.TYPE_BOOL:
        yield True
    elif alternatives[0].isdecimal():
        yield from map(int, alternatives)
    elif field.type == field.TYPE_STRING:
        yield info(name).default or "1"


def is_refused(name: str, value: Any) -> bool:
    try:
        config_of(ExperimentSpec(**{"model": "m", "quantize": True, name: value}))
    except SpecError as error:
        return any(each.field == name and REFUSAL in each.message for each in error.violations)
    return False


@pytest.mark.parametrize("name", OPTIONS)
def test_what_is_refused_as_not_supported_is_marked_so(name: str) -> None:
    """`unsupported` in spec.proto names the values that the quantizer refuses as not supported yet, and no others."""
    refused = [str(value) for value in values(name) if is_refused(name, value)]
    marked = list(info(name).unsupported)
    assert refused == ([str(value) for value in values(name)] if marked == [EVERY_VALUE] else marked)


def sections(command: click.Command) -> dict[str, str]:
    """The help's sections, by heading, with single spaces."""
    shown = command.get_help(click.Context(command, info_name=command.name, terminal_width=100))
    shown = shown.partition("\n  Examples:\n" if command.epilog else "\0")[0]
    parts = re.split(r"^(\w[\w ]*):\n", shown, flags=re.MULTILINE)
    return {heading: " ".join(text.split()) for heading, text in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.mark.parametrize("command", [run, submit], ids=["quantizer run", "qlog submit"])
def test_options_stand_in_their_groups(command: click.Command) -> None:
    """--help has a section for each group of spec.proto, in its order, and the program's own options after them."""
    groups = list(dict.fromkeys(info(name).group for name in OPTIONS))
    found = sections(command)
    assert list(found) == [*groups, "Other options"]
    for name in OPTIONS:
        assert re.search(rf"--{name}\b", found[info(name).group])
        assert not re.search(rf"--{name}[ ,]", found["Other options"])
    assert "--log_dir" in found["Other options"]


@pytest.mark.parametrize("command", [run, submit], ids=["quantizer run", "qlog submit"])
def test_help_marks_what_is_not_supported_yet(command: click.Command) -> None:
    """A short suffix after the help of each marked option, with the values where it is not all of them; else none."""
    shown = sections(command)
    for name in OPTIONS:
        marked = list(info(name).unsupported)
        which = "" if marked == [EVERY_VALUE] else f": {', '.join(marked)}"
        suffix = f" [not supported yet{which}]" if marked else ""
        text = shown[info(name).group]
        assert info(name).help + suffix in text
        assert marked or f"{info(name).help} [not supported yet" not in text
