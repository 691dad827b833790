"""JSON-like values and times as messages of `qlog.v1`."""

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from qlog.v1 import common_pb2 as pb

from quantizer.texts import name_of, text_of


def value_message(value: Any) -> pb.Value:
    """A JSON-like value; whole numbers beyond 64 bits become fractions, other objects their text."""
    if value is None:
        return pb.Value(null_value=pb.NULL_KIND_UNSPECIFIED)
    if isinstance(value, bool):
        return pb.Value(bool_value=value)
    if isinstance(value, int):
        if -(2**63) <= value < 2**63:
            return pb.Value(int_value=value)
        return pb.Value(double_value=float(value))
    if isinstance(value, float):
        return pb.Value(double_value=value)
    if isinstance(value, Mapping):
        return pb.Value(object_value=pb.FieldList(fields=field_messages(value)))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return pb.Value(list_value=pb.ListValue(values=[value_message(item) for item in value]))
    return pb.Value(string_value=text_of(str(value)))


def field_messages(values: Mapping[str, Any]) -> list[pb.Field]:
    """An object's entries, in its order."""
    return [pb.Field(name=name_of(str(name)), value=value_message(value)) for name, value in values.items()]


def timestamp_message(seconds: float) -> Timestamp:
    """Seconds since 1970."""
    whole = int(seconds // 1)
    return Timestamp(seconds=whole, nanos=int((seconds - whole) * 1e9))


__all__ = ["field_messages", "timestamp_message", "value_message"]
