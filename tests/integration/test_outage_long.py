"""The long form: kill -9 of either side, again and again, at random moments."""

import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from quantizer.endpoints import FixedEndpoint
from quantizer.entry import run_command
from quantizer.recorder import Recorder
from tests.integration.moments import collector, free_port
from tests.quantizer.builders import began, finished, measured
from tests.quantizer.conftest import until
from tests.quantizer.runs import records

pytestmark = pytest.mark.long

# Records tensors without end, as fast as a process may; killed from outside.
ENDLESS = """
import itertools, sys, time
from pathlib import Path
from quantizer.endpoints import FixedEndpoint
from quantizer.recorder import Recorder
from tests.quantizer.builders import began, measured
recorder = Recorder(Path(sys.argv[1]), collector=sys.argv[2], open_local=lambda: FixedEndpoint("x:1"), warn=print)
event = began()
recording = recorder.recording(event.experiment_id)
recording.record(event)
print(event.experiment_id, flush=True)
for index in itertools.count():
    recording.record(measured(index))
    time.sleep(0.0005)
"""


def tensor_names(count: int) -> list[str]:
    return [f"layer_{index}.x_proj:input" for index in range(count)]


def test_a_collector_killed_again_and_again_has_every_event_once(tmp_path: Path) -> None:
    """Twenty lives of a collector, one experiment: its line holds every tensor, in order, and there is one line."""
    port, chance, total = free_port(), random.Random(1), 20_000
    over = threading.Event()

    def live_and_die() -> None:
        while not over.is_set():
            with collector(tmp_path / "there", port) as (process, _):
                if over.wait(chance.uniform(0.05, 1.0)):
                    return
                process.send_signal(signal.SIGKILL)
                process.wait()

    killer = threading.Thread(target=live_and_die)
    killer.start()
    recorder = Recorder(
        tmp_path / "here",
        collector=f"127.0.0.1:{port}",
        open_local=lambda: FixedEndpoint("127.0.0.1:1"),
        warn=lambda _message: None,
    )
    try:
        event = began()
        recording = recorder.recording(event.experiment_id)
        recording.record(event)
        for index in range(total):
            recording.record(measured(index))
            time.sleep(0.001)
        recording.record(finished())
    finally:
        over.set()
        killer.join()
        recorder.close()
    with collector(tmp_path / "there", port):
        assert run_command(["spool", "flush", "--log_dir", str(tmp_path / "here")]) == 0
    (record,) = records(tmp_path / "there")
    assert list(record["activation_stats"]) == tensor_names(total)
    assert record["status"] == "COMPLETED"
    assert record["dropped"] == {}


def test_quantizers_killed_at_random_moments_leave_whole_beginnings(tmp_path: Path) -> None:
    """Each record ends as FAILED and holds its first tensors without a gap, whatever the moment."""
    chance = random.Random(2)
    ids: list[str] = []
    with collector(tmp_path / "there") as (_, address):
        for _ in range(15):
            words = [sys.executable, "-c", ENDLESS, str(tmp_path / "here"), address]
            process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            ids.append(process.stdout.readline().strip())
            time.sleep(chance.uniform(0.0, 0.7))
            process.kill()
            process.communicate()
        assert run_command(["spool", "flush", "--log_dir", str(tmp_path / "here")]) == 0
    found = {record["experiment_id"]: record for record in records(tmp_path / "there")}
    assert sorted(found) == sorted(ids)
    for record in found.values():
        assert record["status"] == "FAILED"
        assert list(record["activation_stats"]) == tensor_names(len(record["activation_stats"]))
    assert any(len(record["activation_stats"]) > 100 for record in found.values())


def test_processes_that_share_a_spool_lose_nothing(tmp_path: Path) -> None:
    """Four at once on one spool and one local store, killed and followed by others."""
    processes: list[Any] = []
    with collector(tmp_path / "there") as (_, address):
        for _ in range(4):
            words = [sys.executable, "-c", ENDLESS, str(tmp_path / "here"), address]
            processes.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
        ids = [process.stdout.readline().strip() for process in processes]
        time.sleep(3.0)
        for process in processes:
            process.kill()
            process.communicate()
        assert run_command(["spool", "flush", "--log_dir", str(tmp_path / "here")]) == 0
        until(lambda: len(records(tmp_path / "there")) == 4, "all records are stored")
    for record in records(tmp_path / "there"):
        assert record["experiment_id"] in ids
        assert list(record["activation_stats"]) == tensor_names(len(record["activation_stats"]))
