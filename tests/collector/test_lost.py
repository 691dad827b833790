"""LOST by lease, completed by an amendment; tags and notes: durable, and never a byte of the log changed."""

import shutil
import time

import grpc
import pytest
from qlog.v1 import collector_pb2 as wire
from qlog.v1 import common_pb2 as pb
from qlog.v1.serving.listening import Listening

from collector.fold import CODEC
from collector.ledger import Receipt
from collector.names import META_NAME
from collector.server import Server
from collector.store import INFLIGHT_NAME, LOG_NAME, open_store
from tests.collector.builders import (
    batch,
    begin,
    connected,
    finish,
    log_lines,
    new_id,
    opened,
    record,
    requests,
    serving,
    stats,
    submit,
)


def until(condition) -> None:
    """Wait for a condition; a bound against hanging, no measurement."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def lose(log_dir, events):
    """A store with one experiment that is LOST; its id."""
    experiment_id = new_id()
    store = open_store(log_dir, CODEC, lease_s=0.2)
    try:
        submit(store, batch(experiment_id, events))
        until(lambda: store.index().by_id(experiment_id) is not None)
        assert store.running() == {}
    finally:
        store.close()
    return experiment_id


def test_silence_makes_a_line_and_a_late_finish_completes_it(log_dir):
    """LOST with what it had sent; offsets go on; the amendment is what the whole would have been; the line stays."""
    experiment_id = lose(log_dir, [begin(), stats("a")])
    before = (log_dir / LOG_NAME).read_bytes()
    with opened(log_dir) as store:
        lost = store.record(store.index().by_number(0))
        assert (lost["status"], list(lost["activation_stats"])) == ("LOST", ["a"])
        assert "not heard of" in lost["error"]
        assert store.status(experiment_id) == Receipt(2)
        (answer,) = submit(store, batch(experiment_id, [stats("b")], 2))
        assert answer == Receipt(3)
        (answer,) = submit(store, batch(experiment_id, [finish()], 3))
        assert answer == Receipt(4, 0, finished=True)
    assert (log_dir / LOG_NAME).read_bytes() == before
    with opened(log_dir) as store:
        entry = store.index().by_id(experiment_id)
        assert store.record(entry)["status"] == entry.basic_record()["status"] == "COMPLETED"
        assert list(store.record(entry)["activation_stats"]) == ["a", "b"]
        assert store.status(experiment_id) == Receipt(4, 0, finished=True)
        assert store.index().count() == 1


def test_one_whose_events_are_gone_begins_anew_and_is_complete(log_dir):
    """Without the events that it had sent, its sender is asked for all of them; the amendment is exact."""
    experiment_id = lose(log_dir, [begin(), stats("a")])
    for file in log_dir.glob(f"{INFLIGHT_NAME}*"):
        file.unlink()
    with opened(log_dir) as store:
        assert store.status(experiment_id) == Receipt(0)
        submit(store, batch(experiment_id, [begin(), stats("a"), stats("b"), finish()]))
        assert list(store.record(store.index().by_number(0))["activation_stats"]) == ["a", "b"]
        assert store.index().count() == 1


def test_a_heartbeat_keeps_the_lease_and_a_restart_begins_it_anew(log_dir):
    """Who is heard of is not LOST, and a collector that was down gives up nobody for that."""
    experiment_id = new_id()
    with opened(log_dir) as store:
        submit(store, batch(experiment_id, [begin()]))
    time.sleep(0.6)
    store = open_store(log_dir, CODEC, lease_s=0.5)
    try:
        for _ in range(20):
            submit(store, batch(experiment_id, []))
            time.sleep(0.05)
        assert list(store.running()) == [experiment_id]
    finally:
        store.close()


def test_annotations_are_durable_idempotent_and_shown(log_dir):
    """Tags, note, archive mark: in every view, after a restart too; the same again writes nothing."""
    with serving(log_dir) as client:
        client.record()
        call = client.stub.AnnotateExperiment
        request = wire.AnnotateExperimentRequest(ref="0", add_tags=["b", "a"], note="why\n", archived=True)
        assert list(call(request, timeout=10).experiment.tags) == ["b", "a"]
        size = (log_dir / META_NAME).stat().st_size
        call(request, timeout=10)
        assert (log_dir / META_NAME).stat().st_size == size
        call(wire.AnnotateExperimentRequest(ref="0", remove_tags=["b"]), timeout=10)
        for wrong in ({"add_tags": [""]}, {"add_tags": ["x\x1b"]}, {"add_tags": ["x" * 101]}, {"note": "x" * 70000}):
            with pytest.raises(grpc.RpcError) as error:
                call(wire.AnnotateExperimentRequest(ref="0", **wrong), timeout=10)
            assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    with serving(log_dir) as client:
        for found in (client.get("0"), client.list().experiments[0]):
            assert (list(found.tags), found.note, found.archived) == (["a"], "why\n", True)


def test_what_is_said_of_one_that_runs_stays_when_it_ends(log_dir):
    """By its id until it has a number."""
    experiment_id = new_id()
    with serving(log_dir) as client:
        client.append(experiment_id, [begin()])
        client.stub.AnnotateExperiment(
            wire.AnnotateExperimentRequest(ref=experiment_id, add_tags=["early"]), timeout=10
        )
        assert client.get(experiment_id).status == pb.EXPERIMENT_STATUS_RUNNING
        assert list(client.get(experiment_id).tags) == ["early"]
        client.append(experiment_id, [finish()], offset=1)
        assert list(client.get("0").tags) == ["early"]


def test_damage_of_what_is_said_costs_that_alone(log_dir, caplog):
    """A bad line is kept and says nothing, half a line is set aside; the log is served as before."""
    with serving(log_dir) as client:
        client.record()
        for tag in ("a", "b"):
            client.stub.AnnotateExperiment(wire.AnnotateExperimentRequest(ref="0", add_tags=[tag]), timeout=10)
    path = log_dir / META_NAME
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second.replace(b'"b"', b'"c"') + second[:-5])
    with serving(log_dir) as client:
        assert list(client.get("0").tags) == ["a"]
        assert client.stub.GetStoreInfo(wire.GetStoreInfoRequest(), timeout=10).corrupt_meta_lines == 1
    assert path.read_bytes().startswith(first)
    assert len(list(log_dir.glob(f"{META_NAME}.torn-*"))) == 1


def test_what_was_said_of_another_log_is_not_said_of_this_one(log_dir):
    """Numbers alone do not carry a tag over to another experiment."""
    with opened(log_dir) as store:
        record(store)
        store.annotate(store.index().by_number(0), lambda said: type(said)(("a",)))
    (log_dir / LOG_NAME).unlink()
    with opened(log_dir) as store:
        record(store)
        assert store.annotation(store.index().by_number(0)).tags == ()


def test_a_backup_taken_while_written_is_a_store(log_dir, tmp_path):
    """Every file up to its last whole line, amendments too."""
    lose(log_dir, [begin()])
    with serving(log_dir) as client:
        client.record()
        client.stub.AnnotateExperiment(wire.AnnotateExperimentRequest(ref="1", add_tags=["kept"]), timeout=10)
        chunks: dict[str, bytes] = {}
        for part in client.stub.BackupStore(wire.BackupStoreRequest(), timeout=30):
            assert part.offset == len(chunks.get(part.file, b""))
            chunks[part.file] = chunks.get(part.file, b"") + part.chunk
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, data in chunks.items():
        (copy / name).write_bytes(data)
    assert log_lines(copy) == log_lines(log_dir)
    with serving(copy) as client:
        assert client.list().total_size == 2
        assert list(client.get("1").tags) == ["kept"]
    shutil.rmtree(copy)


def test_who_watches_a_lost_experiment_gets_its_end_at_once(log_dir, monkeypatch):
    """By the bell, not by looking: the end comes with status LOST although nobody looks again for an hour."""
    monkeypatch.setattr("collector.follow._LOOK_S", 3600.0)
    store = open_store(log_dir, CODEC, lease_s=0.5)
    server = Server(store, Listening(), reflection=False)
    server.start()
    try:
        with connected(server.endpoint) as (stub, _):
            experiment_id = new_id()
            list(stub.AppendExperiment(requests(experiment_id, [begin(), stats("a")]), timeout=20))
            watched = list(stub.WatchExperiments(wire.WatchExperimentsRequest(experiment_id=experiment_id), timeout=60))
    finally:
        server.stop()
    assert sum(len(response.events) for response in watched) == 2
    assert watched[-1].ended.status == pb.EXPERIMENT_STATUS_LOST
    assert watched[-1].ended.number == 0
