"""Ingest, durable and acknowledged, against a bare gRPC stream of the same batches that stores nothing.

Both servers are processes of their own, both get the same bytes from the same senders, by turns. The figure is the
median of the ratios of neighbouring runs.
"""

import json
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from qlog.v1 import collector_pb2 as wire
from qlog.v1 import common_pb2 as pb

from collector.names import LOG_NAME
from tests.bench.test_collector_speed import full_stats
from tests.collector.builders import begin, finish, new_id

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

_SENDERS, _BATCH, _BATCHES, _ROUNDS = 8, 96, 100, 9
_METHOD = "/qlog.v1.CollectorService/AppendExperiment"


@contextmanager
def process(*arguments: str) -> Iterator[str]:
    """A server in a process of its own; its endpoint."""
    with subprocess.Popen(
        [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            found = re.search(r"listening on (\S+),", server.stdout.readline())
            assert found, "the server did not start"
            yield found[1]
        finally:
            server.terminate()


def stream_of(experiment_id: str) -> tuple[list[bytes], list[bytes], list[str]]:
    """The requests of one experiment, serialized: begin, the statistics in batches, finish; and the tensors' names."""
    tensors = [full_stats(f"layer_{i // 8}.{i % 8}:input") for i in range(_BATCH * _BATCHES)]
    for place, stats in enumerate(tensors):
        stats.absmax += place * 1e-6
    events = [begin(), *(pb.Event(layer_stats=stats) for stats in tensors)]
    requests = [wire.AppendExperimentRequest(experiment_id=experiment_id, offset=0, events=events[:1])]
    for start in range(1, len(events), _BATCH):
        requests.append(
            wire.AppendExperimentRequest(
                experiment_id=experiment_id, offset=start, events=events[start : start + _BATCH]
            )
        )
    last = wire.AppendExperimentRequest(experiment_id=experiment_id, offset=len(events), events=[finish()])
    return (
        [request.SerializeToString() for request in requests],
        [last.SerializeToString()],
        [stats.name for stats in tensors],
    )


def renamed(requests: Sequence[bytes], before: str, after: str) -> list[bytes]:
    """The same requests for another experiment: ids are of one length."""
    return [request.replace(before.encode(), after.encode(), 1) for request in requests]


def send(endpoint: str, streams: Sequence[Sequence[bytes]]) -> tuple[float, list[list[int]]]:
    """Send all streams at once, each by a thread and a connection of its own; seconds to the last acknowledgement."""
    offsets: list[list[int]] = [[] for _ in streams]
    barrier = threading.Barrier(len(streams) + 1)

    def run(place: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(endpoint, options=options) as channel:
            grpc.channel_ready_future(channel).result(30)
            call = channel.stream_stream(_METHOD, None, wire.AppendExperimentResponse.FromString)
            barrier.wait()
            offsets[place] = [answer.committed_offset for answer in call(iter(streams[place]), timeout=300)]

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(streams))]
    for thread in threads:
        thread.start()
    barrier.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start, offsets


def test_durable_ingest_against_a_stream_that_stores_nothing(tmp_path: Path):
    """8 experiments at once, batches of 96, each acknowledged when synced; all of it is in the log, in order."""
    log_dir = tmp_path / "logs"
    total = _SENDERS * _BATCH * _BATCHES
    rates: dict[str, list[float]] = {"bare": [], "durable": [], "finish": []}
    expected: dict[str, list[str]] = {}
    with (
        process("-m", "tests.bench.bare_server") as bare,
        process("-m", "collector.entry", "serve", "--port", "0", "--log_dir", str(log_dir)) as durable,
    ):
        first = new_id()
        requests, end, names = stream_of(first)
        for _ in range(_ROUNDS):
            ids = [new_id() for _ in range(_SENDERS)]
            streams = [renamed(requests, first, experiment_id) for experiment_id in ids]
            ends = [renamed(end, first, experiment_id) for experiment_id in ids]
            expected |= dict.fromkeys(ids, names)
            seconds, _ = send(bare, streams)
            rates["bare"].append(total / seconds)
            seconds, offsets = send(durable, streams)
            rates["durable"].append(total / seconds)
            for answers in offsets:
                assert answers == sorted(answers), "an acknowledgement is out of order"
                assert answers[-1] == 1 + _BATCH * _BATCHES, "an acknowledgement is missing"
            seconds, _ = send(durable, ends)
            rates["finish"].append(total / seconds)
    lines = [json.loads(line) for line in (log_dir / LOG_NAME).read_bytes().splitlines()]
    assert {line["experiment_id"] for line in lines} == set(expected)
    for line in lines:
        assert list(line["activation_stats"]) == expected[line["experiment_id"]], "an event is lost or out of order"
    ratios = [durable / bare for durable, bare in zip(rates["durable"], rates["bare"], strict=True)]
    for name, values in rates.items():
        print(f"\n{name}: {', '.join(f'{value:,.0f}' for value in values)} statistics/s", end="")
    print(f"\ndurable / bare: {statistics.median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})")
