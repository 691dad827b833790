"""A real collector process, killed at random moments while it takes experiments."""

import json
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from collector.store import LOG_NAME
from tests.collector.builders import begin, connected, finish, new_id, requests, result, stats

_SENDERS = 4
_TENSORS = 12


@contextmanager
def collector(log_dir: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A collector process and its endpoint; killed at the end if it still lives."""
    command = [sys.executable, "-m", "collector.entry", "serve", "--port", "0", "--log_dir", str(log_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        found = re.search(r"listening on (\S+),", process.stdout.readline())
        assert found, "the collector did not start"
        try:
            yield process, found[1]
        finally:
            process.kill()


class Sender:
    """One after another sends whole experiments, as a sender does: from the committed offset, until acknowledged."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, int] = {}
        self.numbers: dict[str, int] = {}
        self._experiment_id = new_id()

    def run(self, endpoint: str) -> None:
        """Send until the connection breaks."""
        events = [begin(), *(stats(f"layer_{i}.x_proj:input") for i in range(_TENSORS)), result(0.5), finish()]
        with connected(endpoint) as (stub, _):
            while True:
                done = self.acknowledged.get(self._experiment_id, 0)
                # A sender may not know of the last acknowledgements: it repeats.
                offset = max(0, done - random.randint(0, 2))
                stream = requests(self._experiment_id, events[offset:], offset=offset, size=random.randint(1, 4))
                try:
                    for answer in stub.AppendExperiment(stream, timeout=60):
                        self.acknowledged[self._experiment_id] = answer.committed_offset
                        if answer.HasField("number"):
                            self.numbers[self._experiment_id] = answer.number
                except grpc.RpcError:
                    return
                self._experiment_id = new_id()


def kill_in_a_loop(log_dir: Path, rounds: int) -> None:
    """Start, send from several threads, kill; then check every promise that was made."""
    senders = [Sender() for _ in range(_SENDERS)]
    for _ in range(rounds):
        with collector(log_dir) as (process, endpoint):
            threads = [threading.Thread(target=sender.run, args=(endpoint,)) for sender in senders]
            for thread in threads:
                thread.start()
            time.sleep(random.uniform(0.05, 0.6))
            process.kill()
            for thread in threads:
                thread.join(30)
                assert not thread.is_alive()
    with collector(log_dir) as (_, endpoint), connected(endpoint) as (stub, _):
        from qlog.v1 import collector_pb2 as wire

        for sender in senders:
            for experiment_id, offset in sender.acknowledged.items():
                status = stub.GetAppendStatus(wire.GetAppendStatusRequest(experiment_id=experiment_id), timeout=10)
                assert status.committed_offset >= offset, f"{experiment_id}: an acknowledged event is lost"
                if experiment_id in sender.numbers:
                    assert status.number == sender.numbers[experiment_id], f"{experiment_id}: another number"
    lines = [json.loads(line) for line in (log_dir / LOG_NAME).read_bytes().splitlines()]
    ids = [line["experiment_id"] for line in lines]
    assert len(set(ids)) == len(ids), "an experiment is there twice"
    assert all(len(line["activation_stats"]) == _TENSORS and line["status"] == "COMPLETED" for line in lines)
    for sender in senders:
        for experiment_id, number in sender.numbers.items():
            assert ids[number] == experiment_id


def test_a_collector_killed_under_load_keeps_every_promise(tmp_path):
    """kill -9 three times: nothing acknowledged is lost, nothing is twice, numbers stay."""
    kill_in_a_loop(tmp_path / "logs", rounds=3)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_collector_killed_two_hundred_times_keeps_every_promise(tmp_path):
    """The same, two hundred times."""
    kill_in_a_loop(tmp_path / "logs", rounds=200)
