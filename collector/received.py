"""A request of the ingest as it came: its bytes, cut into events, checked in bulk where all are of the plain kind.

The bytes are what is stored, so that nothing is made anew on the way to the disk.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

from qlog.v1 import common_pb2 as pb

from collector import limits
from collector.batches import Batch
from collector.errors import InvalidRequestError
from collector.merged import PREFIX_BYTES, DecodeError, Request, is_plain, texts_of
from collector.validate import check_event, check_experiment_id, check_place

_prefix = itemgetter(slice(0, PREFIX_BYTES))
# Characters: whatever they are, they make no more bytes than a name may have.
_SHORT = limits.MAX_NAME_BYTES // 4


@dataclass(frozen=True, slots=True)
class Received:
    """A request.

    Attributes:
        experiment_id, offset: as they were sent.
        events: each as its bytes.
        data: the whole of it.
    """

    experiment_id: str
    offset: int
    events: Sequence[bytes]
    data: bytes


def received(data: bytes) -> Received:
    """Read a request down to its events.

    Raises:
        DecodeError: it cannot be read.
    """
    request = Request.FromString(data)
    return Received(request.experiment_id, request.offset, list(request.events), data)


def batch_of(request: Received) -> Batch:
    """The batch that a request carries, checked.

    Raises:
        InvalidRequestError: it breaks the contract.
    """
    experiment_id = check_experiment_id(request.experiment_id)
    events, offset = request.events, request.offset
    if not 0 <= offset <= limits.MAX_EVENTS:
        raise InvalidRequestError("offset", f"offset is {offset}, not between 0 and {limits.MAX_EVENTS}")
    if len(events) > limits.MAX_EVENTS_PER_BATCH:
        raise InvalidRequestError("events", f"{len(events)} events, at most {limits.MAX_EVENTS_PER_BATCH} a request")
    count = len(events)
    if not events:
        return Batch(experiment_id, offset, 0, 0, False, b"")
    others = _others(events) if offset > 0 else range(count)
    kinds = [_kind_of(events[place], offset, place, last=place == count - 1) for place in others]
    tensors = count - len(kinds) + kinds.count("layer_stats")
    return Batch(experiment_id, offset, count, tensors, bool(kinds) and kinds[-1] == "finish", request.data)


def _others(events: Sequence[bytes]) -> Sequence[int]:
    """The places of those that have to be checked one by one: all others are statistics as they should be."""
    # Most have the same length, and begin alike.
    odd = {
        shape
        for shape in set(zip(map(len, events), map(_prefix, events), strict=True))
        if shape[0] > limits.MAX_EVENT_BYTES or not is_plain(*shape, _SHORT)
    }
    others = [place for place, event in enumerate(events) if (len(event), _prefix(event)) in odd] if odd else []
    plain = [event for event in events if (len(event), _prefix(event)) not in odd] if odd else events
    return others if _are_short(plain) else range(len(events))


def _are_short(events: Sequence[bytes]) -> bool:
    """Whether all of these have one name and short texts, and nothing that has to be looked at by itself."""
    try:
        texts = texts_of(events)
    except DecodeError:
        return False
    if texts is None:
        return False
    names, observers = texts
    # Each begins with a name: as many as events are one for each.
    return names == len(events) and max(map(len, observers), default=0) <= _SHORT


def _kind_of(data: bytes, offset: int, place: int, *, last: bool) -> str | None:
    """The kind of one event, which is checked."""
    if len(data) > limits.MAX_EVENT_BYTES:
        raise InvalidRequestError(
            f"events[{place}]", f"an event of {len(data)} bytes, at most {limits.MAX_EVENT_BYTES}"
        )
    try:
        event = pb.Event.FromString(data)
    except DecodeError:
        raise InvalidRequestError(f"events[{place}]", f"events[{place}] cannot be parsed") from None
    kind: str | None = event.WhichOneof("event")
    check_place(kind, offset, place, last=last)
    check_event(event, kind, place)
    return kind


__all__ = ["Received", "batch_of", "received"]
