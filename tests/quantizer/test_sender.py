"""The sender's promises, one by one: to disk first, nobody waits, bounded at the end, nobody else's token."""

import sqlite3
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from qlog.v1 import collector_pb2 as pb
from qlog.v1.credentials import Credentials

from quantizer.endpoints import FixedEndpoint
from quantizer.recorder import Recorder
from quantizer.spool_commands import flush_spool
from tests.quantizer.builders import finished, measured
from tests.quantizer.conftest import Recorders, until
from tests.quantizer.fake_collector import FakeCollector
from tests.quantizer.test_recorder import begin, run_experiment, spooled


def on_disk(log_dir: Path, experiment_id: str) -> tuple[int, int, int]:
    """What another process sees of an experiment: its next offset, what is acknowledged, whether it has ended."""
    with closing(sqlite3.connect(log_dir / "spool" / "spool.sqlite")) as database:
        query = "SELECT next_offset, acknowledged, ended FROM experiments WHERE id = ?"
        return tuple(database.execute(query, (experiment_id,)).fetchone())


def test_events_are_on_disk_before_the_collector_sees_them(collector: FakeCollector, recorders: Recorders) -> None:
    """Whatever arrives is in the spool already, committed, where any process can read it."""
    early: list[int] = []

    def look(request: pb.AppendExperimentRequest) -> None:
        stored, *_ = on_disk(recorders.log_dir, request.experiment_id)
        if request.offset + len(request.events) > stored:
            early.append(request.offset)

    collector.look = look
    recorder = recorders.open(collector.address)
    run_experiment(recorder)
    recorder.close()
    assert collector.requests > 0
    assert early == []


def test_no_call_of_the_experiment_waits_for_the_network(collector: FakeCollector, recorders: Recorders) -> None:
    """While the collector answers nothing at all, an experiment goes from its first event to its last."""
    collector.answering.clear()
    recorder = recorders.open(collector.address)
    experiment_id = run_experiment(recorder)
    assert on_disk(recorders.log_dir, experiment_id) == (302, 0, 1)
    collector.answering.set()
    recorder.close()
    assert collector.finished(experiment_id)


def test_the_end_is_bounded_though_the_collector_lives(
    collector: FakeCollector, recorders: Recorders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that answers, and acknowledges nothing, is waited for only so long; the rest stays, with a warning."""
    monkeypatch.setattr("quantizer.recorder.CLOSE_S", 0.3)
    recorder = recorders.open(collector.address)
    recording = begin(recorder)
    until(lambda: on_disk(recorders.log_dir, recording.experiment_id)[1] == 1, "the begin is acknowledged")
    collector.answering.clear()
    recording.record(finished())
    recorder.close()
    assert spooled(recorders.log_dir) == [recording.experiment_id]
    assert len(recorders.warnings) == 1


def test_a_short_experiment_is_warned_of_as_a_long_one(recorders: Recorders) -> None:
    """Though a first answer is still waited for when all is over."""
    with FakeCollector() as collector:
        collector.answering.clear()
        recorder = recorders.open(collector.address)
        begin(recorder).record(finished())
        recorder.close()
        assert recorder.delivery("x").delivered is False
        assert len(recorders.warnings) == 1
        assert collector.address in recorders.warnings[0]


def test_what_one_experiment_meets_does_not_hold_up_the_next(collector: FakeCollector, recorders: Recorders) -> None:
    """A collector that fails over one experiment's events, again and again, gets those of the others."""
    recorder = recorders.open(collector.address)
    first = begin(recorder)
    until(lambda: collector.kinds(first.experiment_id) == ["begin"], "it has begun")
    collector.refused_id, collector.refuse = first.experiment_id, grpc.StatusCode.INTERNAL
    first.record(measured())
    first.record(finished())
    second = run_experiment(recorder, 1)
    until(lambda: collector.finished(second), "the second arrives")
    collector.refuse = None
    recorder.close()
    assert collector.finished(first.experiment_id)


def test_a_token_goes_to_the_collector_it_was_given_for(
    collector: FakeCollector, tmp_path: Path, recorders: Recorders
) -> None:
    """What was left for another collector is sent there without it."""
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text("our-secret\n")
    with FakeCollector() as other:
        other.refuse = grpc.StatusCode.UNAVAILABLE
        recorder = recorders.open(other.address)
        left = run_experiment(recorder, 1)
        recorder.close()
        other.refuse = None
        recorder = Recorder(
            recorders.log_dir,
            collector=collector.address,
            open_local=lambda: FixedEndpoint("127.0.0.1:1"),
            warn=pytest.fail,
            credentials=Credentials(token_file=str(token)),
        )
        own = run_experiment(recorder, 1)
        until(lambda: other.finished(left), "what was left arrives")
        recorder.close()
        assert collector.finished(own)
        assert other.tokens == []
    assert set(collector.tokens) == {"Bearer our-secret"}


def test_damaged_events_cost_themselves_alone(collector: FakeCollector, tmp_path: Path) -> None:
    """Bytes that changed on disk are counted as lost; a finish that changed becomes one that says so."""
    with FakeCollector() as gone:
        address = gone.address
    opened = Recorders(tmp_path)
    recorder = opened.open(address)
    experiment_id = run_experiment(recorder, 5)
    recorder.close()
    with closing(sqlite3.connect(tmp_path / "spool" / "spool.sqlite", isolation_level=None)) as database:
        change = "UPDATE events SET payload = ? WHERE position = ?"
        database.executemany(change, [(b"\xff\xff", 2), (b"", 4), ("text", 5), (b"\x00", 6)])
    assert flush_spool(tmp_path, collector.address) == "sent 1 experiment"
    kinds = collector.kinds(experiment_id)
    assert kinds == ["begin", "layer_stats", "heartbeat", "layer_stats", "heartbeat", "heartbeat", "finish"]
    finish = collector.store[experiment_id][-1].finish
    assert "damaged" in finish.error
    assert {entry.kind: entry.count for entry in finish.dropped} == {"layer_stats": 3}
