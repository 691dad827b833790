"""ListExperiments, GetExperiment and BatchGetExperiments, through a real server."""

import grpc
import pytest
from qlog.v1 import collector_pb2 as wire
from qlog.v1 import common_pb2 as pb

from collector import limits
from collector.store import LOG_NAME
from tests.collector.builders import (
    LEGACY_LINE,
    begin,
    finish,
    new_id,
    refused,
    result,
    stats,
    whole,
)

BASIC, FULL = wire.EXPERIMENT_VIEW_BASIC, wire.EXPERIMENT_VIEW_FULL


def test_pages_hold_everything_once(client):
    """Whatever the size of the pages and however many are appended meanwhile: each number once, in order."""
    ids = [client.record() for _ in range(7)]
    seen, token = [], ""
    while True:
        page = client.list(page_size=3, page_token=token)
        seen += [experiment.number for experiment in page.experiments]
        token = page.next_page_token
        if not token:
            break
        if len(seen) == 3:
            client.record()
    assert seen == list(range(8))
    assert page.total_size == 8
    first = client.list(order_by="number desc", page_size=2)
    client.record()
    second = client.list(order_by="number desc", page_size=10, page_token=first.next_page_token)
    assert [e.number for e in (*first.experiments, *second.experiments)] == list(range(7, -1, -1))
    assert not second.next_page_token
    assert first.experiments[1].experiment_id == ids[6]


def test_lists_are_basic_unless_asked(client):
    """BASIC has no statistics and says how many there are; FULL has them."""
    client.record(tensors=3)
    (basic,) = client.list().experiments
    assert (len(basic.layer_stats), basic.layer_stats_count) == (0, 3)
    assert basic.results.accuracy == 0.5
    (full,) = client.list(view=FULL).experiments
    assert len(full.layer_stats) == 3


def test_running_experiments_are_listed_after_all_others(client):
    """Without a number, with their progress; those that end between two pages are not missed."""
    client.record()
    running = sorted(new_id() for _ in range(3))
    for experiment_id in running:
        client.append(experiment_id, [begin(), stats(), pb.Event(progress=pb.Progress(phase="calibrate", done=3))])
    page = client.list(include_running=True, page_size=2)
    assert page.total_size == 4
    assert [e.experiment_id for e in page.experiments][1:] == running[:1]
    shown = page.experiments[1]
    assert not shown.HasField("number")
    assert (shown.status, shown.progress.done, shown.layer_stats_count) == (pb.EXPERIMENT_STATUS_RUNNING, 3, 1)
    client.append(running[1], [finish()], offset=3)
    rest = client.list(include_running=True, page_size=5, page_token=page.next_page_token)
    assert [e.experiment_id for e in rest.experiments] == running[1:]
    assert rest.experiments[0].number == 1
    assert [e.experiment_id for e in client.list().experiments][1:] == [running[1]]


@pytest.mark.parametrize("page_size", [1, 2, 10])
def test_running_experiments_are_the_newest_by_their_start(client, page_size):
    """One order, whatever the ids; "number desc" is its reverse, on pages of any size."""
    client.record()
    client.record()
    starts = {new_id(): start for start in (300, 100, 200)}
    for experiment_id, start in starts.items():
        event = begin()
        event.begin.start_time.FromSeconds(start)
        client.append(experiment_id, [event])

    def listed(order):
        found, token = [], ""
        while True:
            page = client.list(include_running=True, order_by=order, page_size=page_size, page_token=token)
            found += [e.start_time.seconds if not e.HasField("number") else e.number for e in page.experiments]
            token = page.next_page_token
            if not token:
                return found

    assert listed("number") == [0, 1, 100, 200, 300]
    assert listed("number desc") == [300, 200, 100, 1, 0]


def test_from_the_newest_nothing_is_missed(client):
    """Running ones that end between two pages are listed as lines, and a line is listed once."""
    client.record()
    running = sorted(new_id() for _ in range(3))
    for experiment_id in running:
        client.append(experiment_id, [begin()])
    query = {"include_running": True, "order_by": "number desc"}
    page = client.list(**query, page_size=1)
    assert [e.experiment_id for e in page.experiments] == running[2:]
    client.append(running[0], [finish()], offset=1)
    page = client.list(**query, page_size=2, page_token=page.next_page_token)
    assert [e.experiment_id for e in page.experiments] == [running[1], running[0]]
    client.append(running[1], [finish()], offset=1)
    page = client.list(**query, page_size=5, page_token=page.next_page_token)
    assert [e.number for e in page.experiments] == [0]


def test_page_tokens_belong_to_their_list(client):
    """A token with other parameters, or made up, is refused."""
    for _ in range(3):
        client.record()
    token = client.list(page_size=1).next_page_token
    for query in (
        {"order_by": "number desc", "page_token": token},
        {"include_running": True, "page_token": token},
        {"view": FULL, "page_token": token},
        {"page_token": "nonsense"},
        {"page_token": token[:-4]},
    ):
        _, found = refused(client.list, **query)
        assert found["BadRequest"].field_violations[0].field == "page_token"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"filter": "modell = x"}, "filter"),
        ({"order_by": "timestam"}, "order_by"),
        ({"page_size": -1}, "page_size"),
        ({"view": 9}, "view"),
    ],
)
def test_lists_that_cannot_be_are_refused(client, query, field):
    """Each with its field."""
    _, found = refused(client.list, **query)
    assert found["BadRequest"].field_violations[0].field == field


def test_a_page_ends_early_where_it_grows_too_large(client, monkeypatch):
    """Fewer experiments than asked for, and a token for the rest."""
    for _ in range(3):
        client.record(tensors=50)
    monkeypatch.setattr(limits, "PAGE_BYTES", 3000)
    page = client.list(view=FULL)
    assert len(page.experiments) == 1
    assert [e.number for e in client.list(view=FULL, page_token=page.next_page_token).experiments] == [1]


def test_a_ref_is_a_number_a_number_from_the_end_an_id_or_a_prefix(client):
    """All of them name the same experiment."""
    ids = [client.record() for _ in range(3)]
    for ref in ("1", "-2", ids[1], ids[1].upper(), ids[1][:13], f" {ids[1][:8]} "):
        assert client.get(ref).experiment_id == ids[1], ref


def test_numbers_come_before_prefixes(client, log_dir):
    """A ref of digits is a number where there is such a line; else, from four characters on, a prefix."""
    uuids = ["00000001-0000-4000-8000-000000000000", "12340000-0000-4000-8000-000000000000"]
    for experiment_id in uuids:
        client.append(experiment_id, whole())
    assert client.get("1").number == 1
    assert client.get("1234").number == 1
    assert client.get("0000").number == 0
    message, _ = refused(client.get, "123", code=grpc.StatusCode.NOT_FOUND)
    assert message == "there is no experiment 123: the last one is 1"
    assert "and no id begins with 1299" in refused(client.get, "1299", code=grpc.StatusCode.NOT_FOUND)[0]


def test_refs_that_name_nothing_say_what_to_do(client):
    """Unknown, ambiguous, too short, no ref at all."""
    assert "none has been recorded yet" in refused(client.get, "-1", code=grpc.StatusCode.NOT_FOUND)[0]
    ids = [f"abcd{place}000-0000-4000-8000-000000000000" for place in range(7)]
    for experiment_id in ids:
        client.append(experiment_id, whole())
    message, found = refused(client.get, "abcd")
    assert message.startswith(f"abcd is ambiguous: {ids[0]}, {ids[1]}, ")
    assert message.endswith("...; give more characters")
    assert found["ErrorInfo"].reason == "AMBIGUOUS_REF"
    assert found["BadRequest"].field_violations[0].field == "ref"
    assert "begins with abcf" in refused(client.get, "abcf", code=grpc.StatusCode.NOT_FOUND)[0]
    for ref in ("", "abc", "last", "1.0", "--1", "x" * 1000, "\x1b[31m"):
        assert refused(client.get, ref)[1]["ErrorInfo"].reason == "INVALID_REQUEST", ref


def test_running_experiments_are_found_by_id(client):
    """By id and prefix, in both views, as far as they have come."""
    experiment_id = new_id()
    client.append(experiment_id, [begin(), stats("a"), stats("b"), result(0.25)])
    full = client.get(experiment_id[:13])
    assert [item.name for item in full.layer_stats] == ["a", "b"]
    assert full.status == pb.EXPERIMENT_STATUS_RUNNING
    assert not full.HasField("number")
    client.append(experiment_id, [stats("c")], offset=4)
    assert client.get(experiment_id, BASIC).layer_stats_count == 3


def test_several_are_got_at_once(client):
    """In the order asked for, repeated where asked twice; one that is not there fails all, and is named."""
    ids = [client.record() for _ in range(3)]
    call = client.stub.BatchGetExperiments
    answer = call(wire.BatchGetExperimentsRequest(refs=["2", ids[0], "2"], view=BASIC), timeout=10)
    assert [experiment.number for experiment in answer.experiments] == [2, 0, 2]
    refused(call, wire.BatchGetExperimentsRequest(refs=["0", "7"]), code=grpc.StatusCode.NOT_FOUND)
    refused(call, wire.BatchGetExperimentsRequest())
    refused(call, wire.BatchGetExperimentsRequest(refs=["0"] * 1001))


def test_an_experiment_of_hundreds_of_layers_arrives(client):
    """FULL answers are larger than a request may be."""
    events = [begin(), *(stats(f"layer_{i}.{'x' * 200}:input") for i in range(15_000)), finish()]
    client.append(new_id(), events, size=2000)
    experiment = client.get("0")
    assert len(experiment.layer_stats) == 15_000
    assert experiment.ByteSize() > limits.MAX_REQUEST_BYTES


def test_damaged_lines_are_shown_with_their_number(client, log_dir):
    """Status CORRUPT, the reason in `error`; the others are as they were."""
    client.record()
    with (log_dir / LOG_NAME).open("ab") as file:
        file.write(b"damage\n" + LEGACY_LINE)
    page = client.list()
    assert [e.number for e in page.experiments] == [0, 1, 2]
    assert page.experiments[1].status == pb.EXPERIMENT_STATUS_CORRUPT
    assert "is corrupt: not JSON" in page.experiments[1].error
    assert client.get("1").status == pb.EXPERIMENT_STATUS_CORRUPT
    info = client.stub.GetStoreInfo(wire.GetStoreInfoRequest(), timeout=10)
    assert (info.experiments, info.corrupt_lines) == (2, 1)
    refused(
        client.stub.CompareExperiments, wire.CompareExperimentsRequest(refs=["0", "1"]), code=grpc.StatusCode.DATA_LOSS
    )
