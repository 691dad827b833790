"""The calls, through a real server: what a client asks and gets."""

import json
import threading

import grpc
import pytest
from qlog.v1 import collector_pb2 as wire
from qlog.v1 import common_pb2 as pb

from collector import limits
from collector.store import LOG_NAME
from tests.collector.builders import (
    LEGACY_LINE,
    begin,
    details,
    finish,
    log_lines,
    new_id,
    requests,
    result,
    serving,
    stats,
    whole,
)

BASIC, FULL = wire.EXPERIMENT_VIEW_BASIC, wire.EXPERIMENT_VIEW_FULL


def refused(call, *args, code=grpc.StatusCode.INVALID_ARGUMENT, **kwargs) -> tuple[str, dict]:
    """The message and details with which a call is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*args, **kwargs)
    assert caught.value.code() is code, caught.value
    assert "\n" not in caught.value.details()
    return caught.value.details(), details(caught.value)


# --- append ---


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


# --- list, get ---


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


# --- compare ---


def test_experiments_are_compared(client, log_dir):
    """Aligned rows, typed cells, BASIC experiments; lines of the earlier logger and running ones take part."""
    with (log_dir / LOG_NAME).open("ab") as file:
        file.write(LEGACY_LINE)
    client.record(tensors=2, accuracy=0.5)
    client.record(tensors=3, accuracy=0.75)
    running = new_id()
    client.append(running, [begin(), stats("layer_0.x_proj:input", high=9.0)])
    request = wire.CompareExperimentsRequest(refs=["1", "2", "0", running])
    answer = client.stub.CompareExperiments(request, timeout=10)
    assert [e.number for e in answer.experiments] == [1, 2, 0, 0]
    assert not answer.experiments[3].HasField("number")
    (accuracy,) = [row for row in answer.results if row.name == "accuracy"]
    assert accuracy.unit == wire.METRIC_UNIT_FRACTION
    assert accuracy.cells[1].difference == 25.0
    assert accuracy.cells[1].exceeds_stderr
    assert not accuracy.cells[2].HasField("exceeds_stderr")
    assert not accuracy.cells[3].HasField("value")
    assert [row.name for row in answer.tensors] == [f"layer_{i}.x_proj:input" for i in range(3)]
    assert [cell.HasField("stats") for cell in answer.tensors[2].cells] == [False, True, False, False]
    assert answer.tensors[0].cells[3].stats.before_percentile.max == 9.0
    (model,) = [row for row in answer.config if row.key == "model"]
    assert [cell.value.string_value for cell in model.cells][2] == "mamba-370m"
    assert model.differs


def test_a_comparison_takes_two_or_more(client):
    """One is too few, too many are too many."""
    client.record()
    for refs in ([], ["0"], ["0"] * 65):
        refused(client.stub.CompareExperiments, wire.CompareExperimentsRequest(refs=refs))


# --- watch ---


def watched(responses) -> tuple[list[str], list]:
    """The kinds of all events of a watch, and the experiments that ended."""
    kinds, ended = [], []
    for response in responses:
        kinds += [event.WhichOneof("event") for event in response.events]
        if response.HasField("ended"):
            ended.append(response.ended)
    return kinds, ended


def test_a_watcher_gets_what_was_sent_before_then_what_comes_then_the_end(client):
    """Every event once, in order, the last ones too, then the experiment with its number."""
    experiment_id = new_id()
    client.append(experiment_id, [begin(), stats("a")])
    watch = client.watch(experiment_id=experiment_id[:8])
    first = next(watch)
    assert (first.offset, len(first.events)) == (0, 2)
    client.append(experiment_id, [stats("b"), result(0.5), finish()], offset=2)
    kinds, (ended,) = watched(watch)
    assert kinds == ["layer_stats", "evaluation_result", "finish"]
    assert (ended.number, ended.status, ended.layer_stats_count) == (0, pb.EXPERIMENT_STATUS_COMPLETED, 2)


def test_a_watch_goes_on_from_its_token(client):
    """After a broken connection nothing is repeated and nothing is missed, in the middle of a batch too."""
    experiment_id = new_id()
    client.append(experiment_id, [begin(), stats("a")])
    watch = client.watch(experiment_id=experiment_id)
    token = next(watch).resume_token
    watch.cancel()
    client.append(experiment_id, [stats("b")], offset=2)
    again = client.watch(experiment_id=experiment_id, resume_token=token)
    response = next(again)
    assert (response.offset, [event.layer_stats.name for event in response.events]) == (2, ["b"])
    again.cancel()
    client.append(experiment_id, [finish()], offset=3)
    kinds, (ended,) = watched(client.watch(experiment_id=experiment_id, resume_token=token))
    assert (kinds, ended.number) == (["layer_stats", "finish"], 0)
    _, found = refused(list, client.watch(resume_token=token))
    assert found["BadRequest"].field_violations[0].field == "resume_token"
    for made_up in ("x", "bnVsbA==", "W251bGwsIm4iLHt9XQ=="):
        refused(list, client.watch(resume_token=made_up))


def test_watching_what_has_ended_ends_at_once(client, log_dir):
    """By number, id, and also for a line that has no id."""
    experiment_id = client.record()
    with (log_dir / LOG_NAME).open("ab") as file:
        file.write(LEGACY_LINE)
    for ref, number in (("0", 0), (experiment_id, 0), ("-1", 1)):
        kinds, (ended,) = watched(client.watch(experiment_id=ref))
        assert (kinds, ended.number) == ([], number)
    refused(list, client.watch(experiment_id="7"), code=grpc.StatusCode.NOT_FOUND)


def test_watching_everything(client):
    """All that run now or begin later, each one's events complete and in order, each one's end; none from before."""
    client.record()
    early = new_id()
    client.append(early, [begin()])
    watch = client.watch()
    assert next(watch).experiment_id == early
    late = [client.record(tensors=4) for _ in range(3)]
    client.append(early, [finish()], offset=1)
    offsets: dict[str, int] = {early: 1}
    ended: list[str] = []
    for response in watch:
        assert response.offset == offsets.get(response.experiment_id, 0)
        offsets[response.experiment_id] = response.offset + len(response.events)
        if response.HasField("ended"):
            ended.append(response.experiment_id)
            if len(ended) == 4:
                break
    assert ended == [*late, early]
    assert offsets == {early: 2, **dict.fromkeys(late, len(whole(tensors=4)))}
    token = response.resume_token
    watch.cancel()
    while_away = client.record()
    _, (missed,) = watched([next(r for r in client.watch(resume_token=token) if r.HasField("ended"))])
    assert missed.experiment_id == while_away


def test_slow_watchers_do_not_hold_up_senders(client):
    """Watchers that never read cost the sender nothing, and a megabyte of events waits in no queue for them."""
    watchers = [client.watch() for _ in range(20)]
    text = "x" * 60_000
    events = [begin(), *(pb.Event(progress=pb.Progress(phase="p", unit="u", done=i)) for i in range(3))]
    bulky = stats()
    bulky.layer_stats.reorder.definition = text
    experiment_id = new_id()
    answers = client.append(experiment_id, [*events, *[bulky] * 200, finish()], size=20)
    assert answers[-1].number == 0
    assert client.server.gate.streams()[0] >= 20
    for watch in watchers:
        watch.cancel()
    while client.server.gate.streams()[0]:
        client.list()
    assert not client.server.store.watchers._watchers


# --- export, info, what is not there yet ---


def test_the_export_is_the_log_byte_for_byte(client, log_dir):
    """Lines of the earlier logger, damaged ones and our own as they stand, in chunks below a megabyte."""
    data = LEGACY_LINE + b"damage\n"
    with (log_dir / LOG_NAME).open("ab") as file:
        file.write(data)
    for _ in range(3):
        client.record(tensors=1500)
    chunks = [r.chunk for r in client.stub.ExportExperiments(wire.ExportExperimentsRequest(), timeout=30)]
    assert b"".join(chunks) == (log_dir / LOG_NAME).read_bytes()
    assert len(chunks) > 1
    assert max(map(len, chunks)) < 1 << 20
    refused(list, client.stub.ExportExperiments(wire.ExportExperimentsRequest(filter="x ="), timeout=30))
    refused(list, client.stub.ExportExperiments(wire.ExportExperimentsRequest(format=9), timeout=30))


def test_the_store_tells_what_it_is(client, log_dir):
    """Path, size, counts, version."""
    client.record()
    client.append(new_id(), [begin()])
    info = client.stub.GetStoreInfo(wire.GetStoreInfoRequest(), timeout=10)
    assert info.path == str(log_dir / LOG_NAME)
    assert info.size_bytes == (log_dir / LOG_NAME).stat().st_size
    assert (info.experiments, info.corrupt_lines, info.running, info.read_only) == (1, 0, 1, False)
    assert info.version
    assert info.open_time.seconds > 0


def test_a_read_only_store_takes_no_experiments(log_dir):
    """FAILED_PRECONDITION, and everything else works."""
    with serving(log_dir) as client:
        client.record()
    with serving(log_dir, read_only=True) as client:
        message, found = refused(client.append, new_id(), [begin()], code=grpc.StatusCode.FAILED_PRECONDITION)
        assert "reading only" in message
        assert found["ErrorInfo"].reason == "STORE_READ_ONLY"
        assert client.get("-1").number == 0
        assert client.stub.GetStoreInfo(wire.GetStoreInfoRequest(), timeout=10).read_only
