"""The client on local stores, through the real collector in its own process."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grpc
import pytest
from qlog.v1 import collector_pb2, collector_pb2_grpc
from qlog.v1 import common_pb2 as pb

from collector.embedded import LocalCollector, open_local
from tests.client import builders
from tests.client.conftest import Ran, started

Qlog = Callable[..., Ran]
STORE = "percentile_experiments.jsonl"
RUN = "0199ffff-0001-7c11-9a52-3f1c8d0e4b67"
EARLIER = {
    "timestamp": "2025-11-05 15:30:00",
    "command": "python main.py mamba-370m --quantize",
    "config": {
        "model": "mamba-370m",
        "w_bits": 8,
        "a_bits": 8,
        "percentile_alpha": 1.0,
        "group_heads": False,
        "apply_gptq": True,
        "quantize_embedding": False,
        "quantize_lm_head": False,
        "calib_data_num": 512,
        "calib_seqlen": 512,
    },
    "activation_stats": {
        "layer_0.x_proj:input": {
            "before_percentile": {"min": -127.35, "max": 156.82, "range": 284.17},
            "after_percentile": {"min": -120.5, "max": 145.3, "range": 265.8},
            "percentile_alpha": 0.9995,
            "clipped_ratio": 0.0005,
            "range_reduction": 0.0646,
        }
    },
    "reorder_summary": {"enabled": False, "avg_range_reduction": None, "total_layers": 0},
    "results": {"accuracy": 0.5205, "perplexity": "NaN"},
}


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    """A store of the earlier logger: two lines and a damaged one between them."""
    other = {**EARLIER, "results": {"accuracy": 0.5455, "perplexity": 9.5}}
    lines = [json.dumps(EARLIER), '{"timestamp": "2025-11-06', json.dumps(other)]
    (tmp_path / STORE).write_text("".join(f"{line}\n" for line in lines))
    return tmp_path


def append(endpoint: str, events: Sequence[pb.Event], offset: int = 0, experiment_id: str = RUN) -> None:
    """Send events as a run does, and wait until they are on disk."""
    request = collector_pb2.AppendExperimentRequest(experiment_id=experiment_id, offset=offset, events=events)
    with grpc.insecure_channel(endpoint) as channel:
        stub = collector_pb2_grpc.CollectorServiceStub(channel)
        responses = list(stub.AppendExperiment(iter([request]), timeout=20))
    assert responses[-1].committed_offset == offset + len(events)


def test_a_store_that_nobody_has_made(qlog: Qlog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default one is empty; one that was named has to be there; neither is made by looking."""
    monkeypatch.chdir(tmp_path)
    ran = qlog("list")
    assert (ran.code, ran.err) == (0, "")
    assert "no experiments in logs/ yet" in ran.out
    assert json.loads(qlog("list", "--format", "json").out) == []
    for arguments in (["show", "0"], ["compare", "0", "1"], ["watch"]):
        ran = qlog(*arguments)
        assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
        assert "quantizer run" in ran.err
    ran = qlog("list", "--log_dir", "elsewhere")
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert "elsewhere" in ran.err
    monkeypatch.setenv("QLOG_LOG_DIR", "elsewhere")
    assert qlog("list").code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_store(qlog: Qlog, log_dir: Path) -> None:
    """One line that says so."""
    ran = qlog("list", "--log_dir", str(log_dir / STORE))
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "not a directory" in ran.err


def test_looking_changes_nothing(qlog: Qlog, log_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A store that is only read is as it was, to the byte and the file; an empty directory stays empty."""
    before = {path.name: path.read_bytes() for path in log_dir.iterdir()}
    for arguments in (["list"], ["show", "0"], ["compare", "0", "2"]):
        assert qlog(*arguments, "--log_dir", str(log_dir)).code == 0
    assert {path.name: path.read_bytes() for path in log_dir.iterdir()} == before
    empty = tmp_path_factory.mktemp("empty")
    assert "no experiments" in qlog("list", "--log_dir", str(empty)).out
    assert list(empty.iterdir()) == []


def test_lines_of_the_earlier_logger(qlog: Qlog, log_dir: Path) -> None:
    """They are listed, shown and compared, with their own numbers around a damaged line."""
    where = ["--log_dir", str(log_dir)]
    entries = json.loads(qlog("list", "--format", "json", *where).out)
    assert [(entry["number"], entry["status"]) for entry in entries] == [(0, None), (1, "CORRUPT"), (2, None)]
    assert entries[0]["results"]["perplexity"] == "NaN"
    record = json.loads(qlog("show", "0", "--format", "json", *where).out)
    assert list(record) == list(EARLIER)
    assert record["activation_stats"] == EARLIER["activation_stats"]
    assert record["config"] == EARLIER["config"]
    assert record["reorder_summary"] == EARLIER["reorder_summary"]
    out = qlog("compare", "0", "-1", *where).out
    assert "+2.50 points" in out
    assert "CORRUPT" in qlog("list", *where).out


@pytest.mark.parametrize(("refs", "code"), [(["0", "1"], 1), (["0", "3"], 1), (["0", "-4"], 1), (["0", "x"], 2)])
def test_what_cannot_be_compared(qlog: Qlog, log_dir: Path, refs: list[str], code: int) -> None:
    """A damaged line, a number that is not there, a word that is no REF: one line each."""
    ran = qlog("compare", *refs, "--log_dir", str(log_dir))
    assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[LocalCollector]:
    """A process that writes to the store; here it is this one."""
    with open_local(tmp_path) as local:
        assert local.owned
        yield local


def test_json_is_the_line_of_the_log(qlog: Qlog, writer: LocalCollector, tmp_path: Path) -> None:
    """What `show` gives is what stands in the log, but for the checksum and the store's own count of events."""
    events = builders.run_events()
    events[-1].finish.phases.add(phase="calibrate", duration_s=41.5)
    events[4].layer_stats.other.extend(builders.fields({"kurtosis": float("nan"), "tags": [1, 1.0, "x"]}))
    append(writer.endpoint, events)
    line = json.loads((tmp_path / STORE).read_text())
    shown = json.loads(qlog("show", "0", "--format", "json", "--log_dir", str(tmp_path)).out)
    for key in ("crc32c", "events"):
        line.pop(key, None)
    assert shown == line
    assert list(shown) == list(line)
    assert json.dumps(shown["activation_stats"]) == json.dumps(line["activation_stats"])


def test_a_store_that_is_written_to_is_read_at_its_writer(qlog: Qlog, writer: LocalCollector, tmp_path: Path) -> None:
    """While a run holds the store, the same commands answer, and running experiments are there."""
    append(writer.endpoint, builders.run_events()[:4])
    where = ["--log_dir", str(tmp_path), "--format", "json"]
    assert json.loads(qlog("list", *where).out) == []
    entry = json.loads(qlog("list", "--running", *where).out)[0]
    assert (entry["number"], entry["status"], entry["progress"]["done"]) == (None, "RUNNING", 2)
    assert json.loads(qlog("show", RUN, *where).out)["status"] == "RUNNING"


def test_a_watch_outlives_the_writer(writer: LocalCollector, tmp_path: Path) -> None:
    """A run that holds the store ends, another goes on with its experiment, and the watch is told it all once."""
    events = builders.run_events()
    append(writer.endpoint, events[:4])
    watch = started("watch", RUN[:8], "--log_dir", str(tmp_path), "--format", "json")
    assert watch.stdout is not None
    seen = [json.loads(watch.stdout.readline())["event"] for _ in range(3)]
    writer.close()
    with open_local(tmp_path) as other:
        append(other.endpoint, events[4:5], offset=4)
        seen.append(json.loads(watch.stdout.readline())["event"])
        append(other.endpoint, events[5:], offset=5)
        out, err = watch.communicate(timeout=60)
    seen += [json.loads(line)["event"] for line in out.splitlines()]
    assert seen == ["begin", "progress", "progress", "layer_stats", "evaluation_result", "finish", "ended"]
    assert watch.returncode == 0, err
    assert "Traceback" not in err


def test_a_watch_may_come_before_the_run(tmp_path: Path) -> None:
    """Without REF, in a store that nobody writes to yet, a run that begins later is told."""
    watch = started("watch", "--log_dir", str(tmp_path))
    assert watch.stderr is not None
    assert watch.stdout is not None
    assert "watching" in watch.stderr.readline()
    assert "waiting for a run" in watch.stderr.readline()
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(iter(watch.stdout.readline, "")))  # type: ignore[union-attr]
    reader.start()
    try:
        with open_local(tmp_path) as local:
            events = builders.run_events()
            append(local.endpoint, events[:-1])
            while not any("cloze" in line for line in lines):
                time.sleep(0.02)
            append(local.endpoint, events[-1:], offset=len(events) - 1)
            while not any("COMPLETED" in line for line in lines):
                time.sleep(0.02)
    finally:
        watch.terminate()
        watch.wait(20)
        reader.join(20)
        watch.stdout.close()
        watch.stderr.close()
    assert lines[0] == f"{RUN[:13]}  mamba-2m W8A8 alpha default\n"
    assert lines[-1].startswith(f"{RUN[:13]}  COMPLETED as number 0")


def test_what_the_collector_warns_of_is_said_by_the_program(tmp_path: Path) -> None:
    """A damaged line costs one line on the standard error, with the program's name."""
    (tmp_path / "percentile_experiments.jsonl").write_text("no JSON\n")
    command = started("list", "--log_dir", str(tmp_path))
    out, err = command.communicate(timeout=60)
    assert command.returncode == 0
    assert "CORRUPT" in out
    assert re.fullmatch(rf"qlog: {tmp_path}/percentile_experiments.jsonl: 1 of its lines cannot be read, [^\n]+\n", err)


def test_many_lists_at_once(log_dir: Path) -> None:
    """Readers do not stand in each other's way."""
    commands = [started("list", "--log_dir", str(log_dir), "--format", "json") for _ in range(4)]
    for command in commands:
        out, _ = command.communicate(timeout=60)
        assert command.returncode == 0
        assert len(json.loads(out)) == 3
