"""A specification as it comes over the wire, and the experiment that it asks for."""

from collections.abc import Mapping
from typing import Any

from qlog.v1.options import default_of
from qlog.v1.spec_pb2 import ExperimentSpec

from quantizer.config import RunConfig
from quantizer.config_reader import read_config

_DEFAULTS: Mapping[str, str] = {field.name: default_of(field.name) for field in ExperimentSpec.DESCRIPTOR.fields}


def options_of(spec: ExperimentSpec) -> dict[str, Any]:
    """A specification's fields as plain values, complete: the option's default where a field is empty or absent."""
    options: dict[str, Any] = {}
    for field in ExperimentSpec.DESCRIPTOR.fields:
        value: Any = getattr(spec, field.name)
        absent = not spec.HasField(field.name) if field.has_presence else value == ""
        if absent:
            default = default_of(field.name)
            value = (default or "") if field.type == field.TYPE_STRING else (int(default) if default else None)
        options[field.name] = value
    return options


def config_of(spec: ExperimentSpec) -> RunConfig:
    """The experiment that a specification asks for.

    Raises:
        SpecError: it cannot be done as asked.
    """
    return read_config(options_of(spec), _DEFAULTS)


__all__ = ["config_of", "options_of"]
