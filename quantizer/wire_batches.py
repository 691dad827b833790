"""Spooled events to messages for the collector, with what was lost in between told at their end."""

from collections.abc import Mapping, Sequence

from google.protobuf.message import DecodeError
from qlog.v1 import common_pb2 as pb

from quantizer.events import Finished, Status
from quantizer.rpc import Batch
from quantizer.spool_tables import SpooledEvent
from quantizer.wire import dropped_messages, spool_entry

_BATCH_EVENTS = 256
_BATCH_BYTES = 2**20

# A place in the experiment whose event was given up: it takes the position and says nothing.
FILLER = pb.Event(heartbeat=pb.Heartbeat())


def last_words(duration_s: float) -> tuple[str, bytes]:
    """The end of an experiment whose process is gone, as the spool keeps it."""
    return spool_entry(Finished(Status.FAILED, "the process ended without finishing", max(0.0, duration_s)))


class DamagedEventError(Exception):
    """The disk has given back other bytes than it was given.

    Attributes:
        offset: of the event.
        replacement: what can stand in its place; None: nothing.
    """

    def __init__(self, event: SpooledEvent) -> None:
        super().__init__(f"the spool's event {event.offset} is damaged")
        self.offset = event.offset
        self.replacement = _damaged_end() if event.kind == "finish" else None


def _damaged_end() -> bytes:
    return spool_entry(Finished(Status.FAILED, "the end of the experiment was damaged in the spool", 0.0))[1]


def batches_of(events: Sequence[SpooledEvent], lost: Mapping[str, int]) -> list[Batch]:
    """Messages for the collector, bounded in events and in bytes.

    Args:
        events: from the spool, at consecutive offsets.
        lost: events of the experiment that were given up, by kind, for its Finish.

    Raises:
        DamagedEventError: an event cannot be read.
    """
    batches: list[Batch] = []
    gathered: list[pb.Event] = []
    size = 0
    for event in events:
        if gathered and (len(gathered) == _BATCH_EVENTS or size + len(event.payload or b"") > _BATCH_BYTES):
            batches.append(Batch(event.offset - len(gathered), tuple(gathered)))
            gathered, size = [], 0
        gathered.append(_sent(event, lost))
        size += len(event.payload or b"")
    if gathered:
        batches.append(Batch(events[-1].offset + 1 - len(gathered), tuple(gathered)))
    return batches


def _sent(event: SpooledEvent, lost: Mapping[str, int]) -> pb.Event:
    if event.payload is None:
        return FILLER
    try:
        message = pb.Event.FromString(event.payload)
    except (DecodeError, TypeError) as error:
        raise DamagedEventError(event) from error
    if message.WhichOneof("event") != event.kind:
        raise DamagedEventError(event)
    return _with_dropped(message, lost) if event.kind == "finish" else message


def _with_dropped(event: pb.Event, dropped: Mapping[str, int]) -> pb.Event:
    """A Finish with the losses that the spool counted added to those it names already."""
    total = {entry.kind: entry.count for entry in event.finish.dropped}
    for kind, count in dropped.items():
        total[kind] = total.get(kind, 0) + count
    del event.finish.dropped[:]
    event.finish.dropped.extend(dropped_messages(total))
    return event


__all__ = ["FILLER", "DamagedEventError", "batches_of", "last_words"]
