"""Recorder, spool and sender together, against a collector that misbehaves."""

import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from quantizer.recorder import Recorder, Recording
from quantizer.spool import Spool
from quantizer.wire import spool_entry
from tests.quantizer.builders import began, finished, measured, progressed
from tests.quantizer.conftest import Recorders, until
from tests.quantizer.fake_collector import FakeCollector


def begin(recorder: Recorder) -> Recording:
    event = began()
    recording = recorder.recording(event.experiment_id)
    recording.record(event)
    return recording


def run_experiment(recorder: Recorder, tensors: int = 300) -> str:
    recording = begin(recorder)
    for index in range(tensors):
        recording.record(measured(index))
    recording.record(finished())
    return recording.experiment_id


def names(collector: FakeCollector, experiment_id: str) -> list[str]:
    return [
        event.layer_stats.name for event in collector.store[experiment_id] if event.WhichOneof("event") == "layer_stats"
    ]


def spooled(log_dir: Path) -> list[str]:
    spool = Spool(log_dir / "spool", on_trouble=pytest.fail)
    rows = [row.id for row in spool.experiments()]
    spool.close()
    return rows


ALL = [f"layer_{index}.x_proj:input" for index in range(300)]


def test_everything_arrives_once_and_in_order(collector: FakeCollector, recorders: Recorders) -> None:
    """What is recorded is what the collector has, in the same order; the spool is empty afterwards."""
    recorder = recorders.open(collector.address)
    experiment_id = run_experiment(recorder)
    recorder.close()
    assert collector.kinds(experiment_id) == ["begin", *["layer_stats"] * 300, "finish"]
    assert names(collector, experiment_id) == ALL
    assert recorder.delivery(experiment_id).number == 0
    assert spooled(recorders.log_dir) == []
    assert list((recorders.log_dir / "spool").glob("*.lock")) == []
    assert recorders.warnings == []


def test_events_arrive_while_the_experiment_runs(collector: FakeCollector, recorders: Recorders) -> None:
    """Statistics reach the collector before the experiment ends."""
    recording = begin(recorders.open(collector.address))
    recording.record(measured(0))
    until(lambda: collector.kinds(recording.experiment_id) == ["begin", "layer_stats"], "the first statistics arrive")


def test_what_an_absent_collector_missed_arrives_at_the_next_start(recorders: Recorders) -> None:
    """With nobody there the spool keeps everything; the next process sends it by itself."""
    with FakeCollector() as gone:
        port = gone.port
    recorder = recorders.open(f"127.0.0.1:{port}")
    experiment_id = run_experiment(recorder)
    recorder.close()
    assert not recorder.delivery(experiment_id).delivered
    assert spooled(recorders.log_dir) == [experiment_id]
    with FakeCollector(port) as back:
        recorders.open(back.address).close()
        assert names(back, experiment_id) == ALL
        assert back.finished(experiment_id)
    assert spooled(recorders.log_dir) == []


def test_an_absent_collector_is_warned_of_in_words_that_help(recorders: Recorders) -> None:
    """The warning names the collector and the place where the record is kept."""
    with FakeCollector() as gone:
        address = gone.address
    recorder = recorders.open(address)
    begin(recorder)
    until(lambda: bool(recorders.warnings), "a warning")
    assert address in recorders.warnings[0]
    assert str(recorders.log_dir / "spool") in recorders.warnings[0]


def test_a_collector_that_dies_in_the_middle_and_comes_back_has_everything_once(recorders: Recorders) -> None:
    """Sending resumes at the committed offset of the collector's second life."""
    first = FakeCollector()
    recorder = recorders.open(first.address)
    recording = begin(recorder)
    for index in range(150):
        recording.record(measured(index))
    until(lambda: len(first.store.get(recording.experiment_id, [])) > 100, "the first half arrives")
    first.stop()
    for index in range(150, 300):
        recording.record(measured(index))
    with FakeCollector(first.port, first.store) as second:
        recording.record(finished())
        recorder.close()
        assert names(second, recording.experiment_id) == ALL
        assert second.kinds(recording.experiment_id).count("finish") == 1


def test_a_stream_that_breaks_again_and_again_still_ends_complete(
    collector: FakeCollector, recorders: Recorders
) -> None:
    """Each broken stream costs no event and doubles none."""
    collector.die_after_requests = 1
    recorder = recorders.open(collector.address)
    experiment_id = run_experiment(recorder, 1000)
    until(lambda: len(collector.store.get(experiment_id, [])) > 0, "the first batch")
    collector.die_after_requests = None
    recorder.close()
    assert names(collector, experiment_id) == [f"layer_{index}.x_proj:input" for index in range(1000)]


def test_a_collector_that_lost_its_disk_gets_everything_again(recorders: Recorders) -> None:
    """Acknowledged events stay in the spool until the experiment is over and all of it acknowledged."""
    first = FakeCollector()
    recorder = recorders.open(first.address)
    recording = begin(recorder)
    for index in range(300):
        recording.record(measured(index))
    until(lambda: len(first.store.get(recording.experiment_id, [])) == 301, "all arrive")
    first.stop()
    with FakeCollector(first.port) as empty:
        recording.record(finished())
        recorder.close()
        assert names(empty, recording.experiment_id) == ALL


def test_an_experiment_whose_process_died_is_finished_as_failed(collector: FakeCollector, recorders: Recorders) -> None:
    """A begin without an end, whose lock nobody holds, gets its last words from the next sender."""
    spool = Spool(recorders.log_dir / "spool", on_trouble=pytest.fail)
    event = began()
    spool.begin(event.experiment_id, collector.address, *spool_entry(event))
    spool.append([(event.experiment_id, *spool_entry(measured(0)))])
    spool.close()  # As the kernel does for a process that is killed.
    recorders.open(collector.address).close()
    assert collector.kinds(event.experiment_id) == ["begin", "layer_stats", "finish"]
    finish = collector.store[event.experiment_id][-1].finish
    assert finish.error == "the process ended without finishing"


def test_a_running_experiment_of_another_process_is_left_alone(collector: FakeCollector, recorders: Recorders) -> None:
    """While its lock is held, an experiment is nobody else's to finish."""
    recording = begin(recorders.open(collector.address))
    recorders.open(collector.address).close()
    assert not collector.finished(recording.experiment_id)


def test_events_meant_for_another_collector_go_there(collector: FakeCollector, recorders: Recorders) -> None:
    """What was left for one collector does not land in another's store because the next run used that one."""
    with FakeCollector() as gone:
        port = gone.port
    recorder = recorders.open(f"127.0.0.1:{port}")
    experiment_id = run_experiment(recorder)
    recorder.close()
    with FakeCollector(port) as back:
        second = recorders.open(collector.address)
        until(lambda: back.finished(experiment_id), "the rest arrives where it was meant to")
        second.close()
    assert experiment_id not in collector.store


def test_a_refused_experiment_does_not_hold_up_the_next(collector: FakeCollector, recorders: Recorders) -> None:
    """A refusal sets one experiment aside, with a warning; the next is sent."""
    recorder = recorders.open(collector.address)
    collector.refuse = grpc.StatusCode.INVALID_ARGUMENT
    refused = run_experiment(recorder, 1)
    until(lambda: bool(recorders.warnings), "a warning")
    collector.refuse = None
    accepted = run_experiment(recorder, 1)
    recorder.close()
    assert collector.finished(accepted)
    assert refused not in collector.store
    assert spooled(recorders.log_dir) == [refused]


@pytest.fixture
def black_hole() -> Iterator[str]:
    """A port that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_port_that_swallows_everything_leaves_the_record_in_the_spool(black_hole: str, recorders: Recorders) -> None:
    """Neither the experiment nor its end waits for an answer that never comes."""
    recorder = recorders.open(black_hole)
    experiment_id = run_experiment(recorder)
    recorder.close()
    assert spooled(recorders.log_dir) == [experiment_id]


def test_progress_is_thinned_but_its_ends_are_kept(collector: FakeCollector, recorders: Recorders) -> None:
    """A thousand progress reports in a moment become a few; the last of a phase is among them."""
    recorder = recorders.open(collector.address)
    recording = begin(recorder)
    for done in range(1, 1001):
        recording.record(progressed(done, 1000))
    recording.record(finished())
    recorder.close()
    progress = [event.progress.done for event in collector.store[recording.experiment_id] if event.HasField("progress")]
    assert progress[0] == 1
    assert progress[-1] == 1000
    assert len(progress) < 100


def test_an_idle_experiment_sends_heartbeats(
    collector: FakeCollector, recorders: Recorders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An experiment that has nothing to tell is still heard of, without new events."""
    monkeypatch.setattr("quantizer.transfer.HEARTBEAT_S", 0.05)
    recording = begin(recorders.open(collector.address))
    until(lambda: collector.heartbeats.count(recording.experiment_id) > 2, "heartbeats")
    assert collector.kinds(recording.experiment_id) == ["begin"]
