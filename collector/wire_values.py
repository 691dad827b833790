"""JSON values and qlog.v1's: scalars, lists, objects, typed keys.

On both sides whole numbers and fractions stay apart and keys keep their order. A double that is not finite is one of
the strings "NaN", "Infinity", "-Infinity" in JSON; these three strings, wherever they stand, are doubles on the wire.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from google.protobuf.message import Message
from qlog.v1 import common_pb2 as pb

from collector.limits import MAX_VALUE_DEPTH
from collector.records import NON_FINITE, Json, double_from_json, double_to_json

# How the typed keys of a JSON object are read: (key, which is the field's name too, reader).
Typed = Sequence[tuple[str, str]]


def json_from_value(value: pb.Value) -> Json:
    """A wire value as JSON has it; one without a kind is null."""
    match value.WhichOneof("kind"):
        case "bool_value":
            return value.bool_value
        case "int_value":
            return value.int_value
        case "double_value":
            return double_to_json(value.double_value)
        case "string_value":
            return value.string_value
        case "list_value":
            return [json_from_value(item) for item in value.list_value.values]
        case "object_value":
            return json_from_fields(value.object_value.fields)
        case _:
            return None


def value_from_json(value: Json, depth: int = MAX_VALUE_DEPTH) -> pb.Value:
    """A JSON value on the wire; what is nested deeper than `depth` becomes its JSON text."""
    if value is None:
        return pb.Value(null_value=pb.NULL_KIND_UNSPECIFIED)
    if isinstance(value, bool):
        return pb.Value(bool_value=value)
    if isinstance(value, int):
        return pb.Value(int_value=value) if -(2**63) <= value < 2**63 else pb.Value(double_value=float(value))
    if isinstance(value, float):
        return pb.Value(double_value=value)
    if isinstance(value, str):
        number = NON_FINITE.get(value)
        return pb.Value(string_value=value) if number is None else pb.Value(double_value=number)
    if depth == 0:
        return pb.Value(string_value=_text(value))
    if isinstance(value, list):
        items = [value_from_json(item, depth - 1) for item in value]
        return pb.Value(list_value=pb.ListValue(values=items))
    return pb.Value(object_value=pb.FieldList(fields=fields_from_json(value, depth - 1)))


def _text(value: Json) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return "(nested too deeply)"


def json_from_fields(fields: Iterable[pb.Field]) -> dict[str, Json]:
    """Named values as a JSON object; of two with the same name the last."""
    return {field.name: json_from_value(field.value) for field in fields}


def fields_from_json(value: Mapping[str, Json], depth: int = MAX_VALUE_DEPTH) -> list[pb.Field]:
    """A JSON object as named values."""
    return [pb.Field(name=name, value=value_from_json(item, depth)) for name, item in value.items()]


def take_typed(message: Message, source: dict[str, Json], keys: Typed) -> None:
    """Move the typed keys of a JSON object into the message's fields of the same names.

    A key that is taken leaves `source`, and so does one that is null: absent on the wire. One whose value does not fit
    its field's type stays, for `other`.
    """
    for key, kind in keys:
        if key not in source:
            continue
        value = source[key]
        if value is not None:
            value = _fitting(value, kind)
            if value is None:
                continue
            setattr(message, key, value)
        del source[key]


def _fitting(value: Json, kind: str) -> Json:
    if kind == "double":
        return double_from_json(value)
    if kind == "bool":
        return value if isinstance(value, bool) else None
    if kind == "string":
        return value if isinstance(value, str) else None
    bound = 2**31 if kind == "int32" else 2**63
    fits = isinstance(value, int) and not isinstance(value, bool) and -bound <= value < bound
    return value if fits else None


def typed_to_json(message: Message, keys: Typed, *, absent_null: bool) -> dict[str, Json]:
    """The message's typed fields as a JSON object.

    Args:
        absent_null: absent fields are null; else they are left out.
    """
    out: dict[str, Json] = {}
    for key, kind in keys:
        if message.HasField(key):
            value: Any = getattr(message, key)
            out[key] = double_to_json(value) if kind == "double" else value
        elif absent_null:
            out[key] = None
    return out


def merge_other(target: dict[str, Json], other: Iterable[pb.Field]) -> None:
    """Add the keys that have no field of their own; objects under the same key are merged."""
    for name, value in json_from_fields(other).items():
        present = target.get(name)
        if isinstance(present, dict) and isinstance(value, dict):
            present.update(value)
        else:
            target[name] = value


__all__ = [
    "Typed",
    "fields_from_json",
    "json_from_fields",
    "json_from_value",
    "merge_other",
    "take_typed",
    "typed_to_json",
    "value_from_json",
]
