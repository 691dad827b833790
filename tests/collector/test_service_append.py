"""AppendExperiment, through a real server: what is taken, what is refused."""

import json
import threading

import grpc
import pytest
from qlog.v1 import common_pb2 as pb

from collector import limits
from tests.collector.builders import (
    begin,
    details,
    finish,
    log_lines,
    new_id,
    refused,
    requests,
    stats,
    whole,
)


def test_each_request_is_answered_once_in_order(client):
    """Answers say what is on disk: never less than the request they answer, and the number at the end."""
    events = whole(tensors=10)
    answers = client.append(new_id(), events, size=3)
    wanted = [*range(3, len(events), 3), len(events)]
    assert len(answers) == len(wanted)
    assert all(answer.committed_offset >= offset for answer, offset in zip(answers, wanted, strict=True))
    assert answers[-1].number == 0


def test_one_stream_carries_many_experiments(client):
    """Requests of several experiments may alternate; each keeps its own offsets."""
    ids = [new_id() for _ in range(5)]
    streams = [requests(name, whole(), size=2) for name in ids]
    mixed = (request for round_ in zip(*streams, strict=True) for request in round_)
    answers = list(client.stub.AppendExperiment(mixed, timeout=30))
    assert sorted(answer.number for answer in answers[-5:]) == [0, 1, 2, 3, 4]
    assert client.list().total_size == 5


def test_many_senders_at_once(client, log_dir):
    """Twelve experiments sent at the same time: each whole, each once, numbers without gaps in the order of commits."""
    numbers: dict[str, int] = {}

    def send(experiment_id: str) -> None:
        answers = client.append(experiment_id, whole(tensors=30), size=4)
        numbers[experiment_id] = answers[-1].number

    threads = [threading.Thread(target=send, args=(new_id(),)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers.values()) == list(range(12))
    lines = [json.loads(line) for line in log_lines(log_dir)]
    assert [numbers[line["experiment_id"]] for line in lines] == list(range(12))
    assert all(len(line["activation_stats"]) == 30 for line in lines)


def test_a_gap_is_out_of_range_and_names_the_offset(client):
    """So that the sender goes on from there; what came before it on the stream is acknowledged."""
    experiment_id = new_id()
    answers = []
    stream = [*requests(experiment_id, [begin(), stats()]), *requests(experiment_id, [stats()], offset=5)]
    with pytest.raises(grpc.RpcError) as caught:
        answers.extend(client.stub.AppendExperiment(iter(stream), timeout=30))
    assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE
    assert details(caught.value)["ErrorInfo"].metadata["wanted_offset"] == "2"
    assert [answer.committed_offset for answer in answers] == [2]
    assert client.status(experiment_id).committed_offset == 2


def test_an_experiment_that_ended_takes_no_more(client):
    """New events after the finish are FAILED_PRECONDITION; repeats are acknowledged with the number."""
    experiment_id = client.record()
    length = len(whole())
    (again,) = client.append(experiment_id, whole())
    assert (again.committed_offset, again.number) == (length, 0)
    message, _ = refused(
        client.append, experiment_id, [stats()], offset=length, code=grpc.StatusCode.FAILED_PRECONDITION
    )
    assert "has ended, with number 0" in message


def test_ids_are_taken_in_either_case(client):
    """A UUID is the same in capitals; answers name it as it was sent."""
    experiment_id = new_id()
    (answer,) = client.append(experiment_id.upper(), [begin()])
    assert answer.experiment_id == experiment_id.upper()
    assert client.status(experiment_id).committed_offset == 1


def nested(depth: int) -> pb.Value:
    value = pb.Value(int_value=1)
    for _ in range(depth):
        value = pb.Value(list_value=pb.ListValue(values=[value]))
    return value


def with_environment(*fields: pb.Field) -> list[pb.Event]:
    event = begin()
    event.begin.environment.extend(fields)
    return [event]


@pytest.mark.parametrize(
    ("events", "offset", "field"),
    [
        ([stats()], 0, "events[0]"),
        ([begin(), begin()], 0, "events[1]"),
        ([begin()], 1, "events[0]"),
        ([begin(), finish(), stats()], 0, "events[1]"),
        ([begin()], -1, "offset"),
        ([begin(), stats("")], 0, "events[1].layer_stats.name"),
        ([begin(), stats("x" * 257)], 0, "events[1].layer_stats.name"),
        ([begin(), *[stats()] * 5000], 0, "events"),
        ([begin(), finish(pb.EXPERIMENT_STATUS_RUNNING)], 0, "events[1].finish.status"),
        ([begin("m" * 70_000)], 0, "events[0].begin.command"),
        (with_environment(*[pb.Field(name=f"k{i}") for i in range(1025)]), 0, "events[0].begin.environment"),
        (with_environment(pb.Field(name="a"), pb.Field(name="a")), 0, "events[0].begin.environment"),
        (with_environment(pb.Field(name="a", value=nested(17))), 0, "events[0].begin.environment"),
        (with_environment(pb.Field(name="")), 0, "events[0].begin.environment"),
    ],
)
def test_batches_that_break_the_contract_are_refused(client, events, offset, field):
    """INVALID_ARGUMENT names the field; nothing of the batch is stored."""
    experiment_id = new_id()
    _, found = refused(client.append, experiment_id, events, offset=offset, size=10_000)
    assert found["BadRequest"].field_violations[0].field == field
    assert client.status(experiment_id).committed_offset == 0


@pytest.mark.parametrize("name", ["", "x", "0", "../../etc/passwd", "0" * 36, "12345678-1234-1234-1234-123456789abg"])
def test_what_is_no_uuid_is_no_experiment(client, name):
    """Ids are UUIDs and nothing else."""
    _, found = refused(client.append, name, [begin()])
    assert found["BadRequest"].field_violations[0].field == "experiment_id"
    refused(client.status, name)


def test_a_request_beyond_4_mib_is_refused(client):
    """The receive limit."""
    big = stats()
    big.layer_stats.observer = "x" * (limits.MAX_REQUEST_BYTES + 1)
    with pytest.raises(grpc.RpcError) as caught:
        client.append(new_id(), [begin(), big])
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_an_experiment_has_a_bounded_number_of_tensors(client, monkeypatch):
    """Beyond it batches are refused, and the finish is still taken."""
    monkeypatch.setattr(limits, "MAX_TENSORS", 5)
    experiment_id = new_id()
    client.append(experiment_id, [begin(), *[stats(f"t{i}") for i in range(5)]])
    message, _ = refused(client.append, experiment_id, [stats("t6")], offset=6)
    assert "more than 5 statistics" in message
    assert client.append(experiment_id, [finish()], offset=6)[0].number == 0


def test_control_characters_are_stored_as_they_are(client, log_dir):
    """In JSON they are escaped, on the wire they are themselves; who shows them escapes them."""
    text = "\x1b[31mred\x00\r\n\u2028"
    event = begin()
    event.begin.command = text
    client.append(new_id(), [event, finish()])
    assert client.get("0").command == text
    (line,) = log_lines(log_dir)
    assert b"\x1b" not in line
    assert json.loads(line)["command"] == text
