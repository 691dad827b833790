"""Statistics of many tensors read in one go: messages that read the same bytes as the contract's, with less work.

Each event costs Python an object and each look at a field a call; thousands of events a second cost it most of its
time. Protobuf merges a message that occurs several times where only one is expected, and what is declared as repeated
accumulates. So one parse of many `Event`s, one behind the other, as ONE event gives the names of all their tensors as
one list. The messages are made from the contract's own, so that they read what those read.
"""

from collections.abc import Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import DecodeError
from qlog.v1 import collector_pb2
from qlog.v1 import common_pb2 as pb

_PACKAGE = "collector.merged"
# Fields of LayerStats that are looked at: texts, and what is only looked at one by one.
_TEXTS, _PARTS = ("name", "observer"), ("reorder", "other")


def _repeated(field: FieldDescriptorProto, kind: int) -> None:
    field.ClearField("type_name")
    field.type = kind  # type: ignore[assignment]
    field.label = FieldDescriptor.LABEL_REPEATED  # type: ignore[assignment]


def _declared(message: Any, name: str) -> DescriptorProto:
    declared = DescriptorProto()
    message.DESCRIPTOR.CopyToProto(declared)
    declared.name = name
    declared.ClearField("oneof_decl")
    for field in declared.field:
        field.ClearField("oneof_index")
        field.ClearField("proto3_optional")
    return declared


def _messages() -> tuple[Any, Any]:
    """(a request whose events are bytes, an event that is many)."""
    request = _declared(collector_pb2.AppendExperimentRequest, "Request")
    for field in request.field:
        if field.name == "events":
            _repeated(field, FieldDescriptor.TYPE_BYTES)
    stats = _declared(pb.LayerStats, "LayerStats")
    for field in stats.field:
        if field.name in _TEXTS:
            _repeated(field, FieldDescriptor.TYPE_STRING)
        elif field.name in _PARTS:
            _repeated(field, FieldDescriptor.TYPE_BYTES)
    events = DescriptorProto(name="Events")
    events.field.add(
        name="layer_stats",
        number=pb.Event.LAYER_STATS_FIELD_NUMBER,
        type=FieldDescriptor.TYPE_MESSAGE,
        label=FieldDescriptor.LABEL_OPTIONAL,
        type_name=f".{_PACKAGE}.LayerStats",
    )
    pool = descriptor_pool.DescriptorPool()
    for file in (*pb.DESCRIPTOR.dependencies, pb.DESCRIPTOR):
        copy = FileDescriptorProto()
        file.CopyToProto(copy)
        pool.Add(copy)
    merged = descriptor_pb2.FileDescriptorProto(
        name="collector/merged.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=[pb.DESCRIPTOR.name],
        message_type=[request, stats, events],
    )
    pool.Add(merged)
    return tuple(  # type: ignore[return-value]
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in ("Request", "Events")
    )


Request, _Events = _messages()

# Of an event that is statistics and nothing else, as every library writes it: the tag, its length (1 to 3 bytes), then
# the tag of the name and the length of that, which is short.
_STATS_TAG = pb.Event.LAYER_STATS_FIELD_NUMBER << 3 | 2
_NAME_TAG = pb.LayerStats.NAME_FIELD_NUMBER << 3 | 2
PREFIX_BYTES = 6


def is_plain(length: int, prefix: bytes, longest: int) -> bool:
    """Whether an event is statistics alone and begins with a name that is there and short.

    Args:
        length: of the event, in bytes.
        prefix: its first bytes.
        longest: name, in bytes; below 128.
    """
    if len(prefix) < PREFIX_BYTES or prefix[0] != _STATS_TAG:
        return False
    # A varint: seven bits a byte, the last byte without the eighth.
    stated, place = 0, 1
    while place < 4:
        byte = prefix[place]
        stated |= (byte & 0x7F) << 7 * (place - 1)
        place += 1
        if byte < 0x80:
            break
    else:
        return False
    return place + stated == length and prefix[place] == _NAME_TAG and 0 < prefix[place + 1] <= longest


def texts_of(events: Sequence[bytes]) -> tuple[int, set[str]] | None:
    """How many names events have that are plain, and their observers; None where one has more to be looked at.

    Raises:
        DecodeError: an event cannot be read.
    """
    stats = _Events.FromString(b"".join(events)).layer_stats
    if stats.reorder or stats.other:
        return None
    return len(stats.name), set(stats.observer)


__all__ = ["PREFIX_BYTES", "DecodeError", "Request", "is_plain", "texts_of"]
