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
from qlog.v1 import collector_pb2 as wire

from collector.fold import fold_record, payload_from_events
from collector.lines import encode_line
from collector.store import LOG_NAME
from tests.collector.builders import begin, connected, finish, new_id, requests, result, stats

_SENDERS = 4
_TENSORS = 12
_EVENTS = [begin(), *(stats(f"layer_{i}.x_proj:input") for i in range(_TENSORS)), result(0.5), finish()]


def _command(log_dir: Path) -> list[str]:
    return [sys.executable, "-m", "collector.entry", "serve", "--port", "0", "--log_dir", str(log_dir)]


@contextmanager
def collector(log_dir: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A collector process and its endpoint; killed at the end if it still lives."""
    with subprocess.Popen(_command(log_dir), stdout=subprocess.PIPE, text=True) as process:
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
        events = _EVENTS
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


class Annotator:
    """Gives tags to lines, one after another; each tag once."""

    def __init__(self) -> None:
        self.said: dict[int, set[str]] = {}
        self._count = 0

    def run(self, endpoint: str) -> None:
        """Annotate until the connection breaks."""
        with connected(endpoint) as (stub, _):
            while True:
                try:
                    count = stub.GetStoreInfo(wire.GetStoreInfoRequest(), timeout=60).experiments
                    if not count:
                        time.sleep(0.01)
                        continue
                    number = random.randrange(count)
                    self._count += 1
                    # A line takes 64 tags.
                    tag = f"t{self._count % 50}"
                    request = wire.AnnotateExperimentRequest(ref=str(number), add_tags=[tag])
                    stub.AnnotateExperiment(request, timeout=60)
                except grpc.RpcError:
                    return
                self.said.setdefault(number, set()).add(tag)


class Importer:
    """Brings lines of another store, in groups; a group that was not answered for is brought again."""

    def __init__(self) -> None:
        self.imported: set[str] = set()
        self._group: dict[str, bytes] = {}

    def run(self, endpoint: str) -> None:
        """Import until the connection breaks."""
        with connected(endpoint) as (stub, _):
            while True:
                if not self._group:
                    for name in (new_id() for _ in range(random.randint(1, 40))):
                        record = fold_record(name, [(payload_from_events(_EVENTS), len(_EVENTS))])
                        self._group[name] = encode_line(record)
                chunk = b"".join(self._group.values())
                try:
                    stub.ImportExperiments(iter([wire.ImportExperimentsRequest(chunk=chunk)]), timeout=60)
                except grpc.RpcError:
                    return
                self.imported |= self._group.keys()
                self._group = {}


def start_and_kill(log_dir: Path) -> None:
    """Kill a collector while it opens: it repairs, folds, and indexes a log whose index is gone."""
    for file in log_dir.glob("*.index.sqlite*"):
        file.unlink()
    with subprocess.Popen(_command(log_dir), stdout=subprocess.DEVNULL) as process:
        time.sleep(random.uniform(0.2, 1.2))
        process.kill()


def kill_in_a_loop(log_dir: Path, rounds: int) -> None:
    """Start, send, annotate and import from several threads, kill; then check every promise that was made."""
    senders = [Sender() for _ in range(_SENDERS)]
    annotator, importer = Annotator(), Importer()
    for place in range(rounds):
        if place % 4 == 3:
            start_and_kill(log_dir)
        with collector(log_dir) as (process, endpoint):
            clients = (*senders, annotator, importer)
            threads = [threading.Thread(target=client.run, args=(endpoint,)) for client in clients]
            for thread in threads:
                thread.start()
            time.sleep(random.uniform(0.05, 0.6))
            process.kill()
            for thread in threads:
                thread.join(60)
                assert not thread.is_alive()
    with collector(log_dir) as (_, endpoint), connected(endpoint) as (stub, _):
        for sender in senders:
            for experiment_id, offset in sender.acknowledged.items():
                status = stub.GetAppendStatus(wire.GetAppendStatusRequest(experiment_id=experiment_id), timeout=10)
                assert status.committed_offset >= offset, f"{experiment_id}: an acknowledged event is lost"
                if experiment_id in sender.numbers:
                    assert status.number == sender.numbers[experiment_id], f"{experiment_id}: another number"
        for number, tags in annotator.said.items():
            shown = stub.GetExperiment(wire.GetExperimentRequest(ref=str(number)), timeout=10).experiment
            assert tags <= set(shown.tags), f"{number}: an acknowledged tag is lost"
        findings = [
            item for response in stub.CheckStore(wire.CheckStoreRequest(), timeout=60) for item in response.findings
        ]
        assert {item.kind for item in findings} <= {wire.FINDING_KIND_FILE_SET_ASIDE}, findings
    lines = [json.loads(line) for line in (log_dir / LOG_NAME).read_bytes().splitlines()]
    ids = [line["experiment_id"] for line in lines]
    assert len(set(ids)) == len(ids), "an experiment is there twice"
    assert importer.imported <= set(ids), "an imported line is lost"
    assert all(len(line["activation_stats"]) == _TENSORS and line["status"] == "COMPLETED" for line in lines)
    for sender in senders:
        for experiment_id, number in sender.numbers.items():
            assert ids[number] == experiment_id
    events = sum(sum(sender.acknowledged.values()) for sender in senders)
    tags = sum(map(len, annotator.said.values()))
    print(f"\n{rounds} rounds: {len(ids)} lines, {events} events, {tags} tags, {len(importer.imported)} imports")


def test_a_collector_killed_under_load_keeps_every_promise(tmp_path):
    """kill -9 three times: nothing acknowledged is lost, nothing is twice, numbers stay."""
    kill_in_a_loop(tmp_path / "logs", rounds=3)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_collector_killed_two_hundred_times_keeps_every_promise(tmp_path):
    """The same, two hundred times; a quarter of them once more while it opens and makes its index anew."""
    kill_in_a_loop(tmp_path / "logs", rounds=200)
