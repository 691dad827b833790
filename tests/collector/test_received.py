"""Requests are checked in bulk: never less than one by one, whatever their bytes are."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qlog.v1 import collector_pb2 as wire
from qlog.v1 import common_pb2 as pb

from collector import limits
from collector.errors import InvalidRequestError
from collector.merged import DecodeError
from collector.received import Received, batch_of, received
from collector.validate import check_event
from tests.collector.builders import begin, finish, new_id, stats


def field(number: int, content: bytes) -> bytes:
    """A field of bytes as it is on the wire."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def request(*events: bytes, offset: int = 1) -> Received:
    head = wire.AppendExperimentRequest(experiment_id=new_id(), offset=offset).SerializeToString()
    return received(head + b"".join(field(3, event) for event in events))


def is_taken_alone(event: bytes) -> bool:
    """What the contract says of one event behind the first."""
    try:
        parsed = pb.Event.FromString(event)
        kind = parsed.WhichOneof("event")
        check_event(parsed, kind, 0)
    except (DecodeError, InvalidRequestError):
        return False
    return kind not in ("begin", "finish")


texts = st.sampled_from(
    [b"", b"a", b"n" * 64, b"n" * 65, b"n" * 256, b"n" * 257, "\u00e9".encode() * 64, b"\xff", b"\0"]
)
# Parts of statistics in any order, twice, missing, damaged.
parts = st.one_of(
    st.builds(field, st.sampled_from([1, 12]), texts),
    st.builds(
        field, st.sampled_from([2, 3, 19, 20, 21]), st.sampled_from([b"", b"\x09" + b"\0" * 8, b"\x09\0", b"\x0a\x01x"])
    ),
    st.sampled_from(
        [varint(4 << 3 | 1) + b"\0" * 8, varint(8 << 3) + varint(5), varint(11 << 3) + b"\xff" * 9 + b"\x01", b"\x08"]
    ),
)
statistics = st.lists(parts, max_size=4).map(b"".join).map(lambda content: field(2, content))
events = st.one_of(
    st.just(stats().SerializeToString()),
    st.just(stats("t" * 200).SerializeToString()),
    st.just(pb.Event(progress=pb.Progress(phase="load")).SerializeToString()),
    statistics,
    st.tuples(statistics, statistics).map(b"".join),
    st.binary(max_size=12),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(events, min_size=1, max_size=6))
def test_a_request_is_taken_exactly_where_each_of_its_events_is(sent):
    """In bulk or one by one: the same verdict, and the same count of statistics."""
    whole = request(*sent)
    if all(is_taken_alone(event) for event in sent):
        batch = batch_of(whole)
        kinds = [pb.Event.FromString(event).WhichOneof("event") for event in sent]
        assert (batch.count, batch.tensors) == (len(sent), kinds.count("layer_stats"))
        assert [
            event.SerializeToString() for event in wire.AppendExperimentRequest.FromString(batch.payload).events
        ] == [pb.Event.FromString(event).SerializeToString() for event in sent]
    else:
        with pytest.raises(InvalidRequestError):
            batch_of(whole)


@pytest.mark.parametrize("name", ["x", "x" * 64, "x" * 65, "x" * 200, "\u00e9" * 40])
@pytest.mark.parametrize("observer", ["", "ema", "o" * 200])
def test_statistics_of_every_length_are_taken(name, observer):
    """Lengths that take one, two and three bytes on the wire, alone and among others."""
    one = pb.Event(layer_stats=pb.LayerStats(name=name, observer=observer))
    long = pb.Event(
        layer_stats=pb.LayerStats(name="long", other=[pb.Field(name="k", value=pb.Value(string_value="v" * 20000))])
    )
    batch = batch_of(request(one.SerializeToString(), stats().SerializeToString(), long.SerializeToString()))
    assert (batch.count, batch.tensors, batch.finishes) == (3, 3, False)


def test_begin_and_finish_have_their_places():
    """begin first and only first, finish last and only last."""
    first, last, some = (event.SerializeToString() for event in (begin(), finish(), stats()))
    assert batch_of(request(first, some, last, offset=0)).finishes
    for wrong in (request(some, offset=0), request(first), request(last, some), request(some, first, offset=0)):
        with pytest.raises(InvalidRequestError):
            batch_of(wrong)


def test_an_event_that_is_too_large_is_named():
    """By its place in the request."""
    large = pb.Event(begin=pb.Begin(command="x" * (limits.MAX_EVENT_BYTES + 1))).SerializeToString()
    with pytest.raises(InvalidRequestError) as error:
        batch_of(request(stats().SerializeToString(), large))
    assert error.value.field == "events[1]"
