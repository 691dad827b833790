"""How fast the collector takes statistics, opens a large store and lists it. Printed, not judged."""

import time
from pathlib import Path

import pytest
from qlog.v1 import common_pb2 as pb

from collector.lines import encode_line
from collector.store import LOG_NAME
from collector.wire import record_from_experiment
from tests.collector.builders import begin, finish, new_id, requests, serving

pytestmark = pytest.mark.bench

_BATCH, _BATCHES, _LINES = 96, 300, 10_000


def full_stats(name: str) -> pb.LayerStats:
    """A tensor with everything that the quantizer sends."""
    interval = pb.ValueRange(min=-127.35123, max=156.82456, range=284.17579)
    return pb.LayerStats(
        name=name,
        before_percentile=interval,
        after_percentile=interval,
        percentile_alpha=0.9995,
        clipped_ratio=0.0005,
        range_reduction=0.0646123,
        measured_clipped_ratio=0.000493,
        count=123_456_789,
        absmax=156.82456,
        scale=1.2348391,
        bits=8,
        observer="ema",
        mean=0.0123456,
        std=3.456789,
        median=0.001234,
        p99=12.34567,
        sqnr_db=32.10987,
        saturated_ratio=0.000498,
    )


def names() -> list[str]:
    return [
        f"layer_{i // 8}.{op}:input" for i in range(_BATCH) for op in [("in_proj", "x_proj", "dt_proj")[i % 3] + str(i)]
    ]


def test_ingest(tmp_path):
    """Statistics a second over one stream, in batches of 96, each acknowledged when it is on disk."""
    batch = [pb.Event(layer_stats=full_stats(name)) for name in names()]
    events = [begin(), *batch * _BATCHES, finish()]
    stream = list(requests(new_id(), events, size=_BATCH))
    with serving(tmp_path) as client:
        client.record()
        start = time.perf_counter()
        answers = list(client.stub.AppendExperiment(iter(stream), timeout=120))
        seconds = time.perf_counter() - start
    assert answers[-1].number == 1
    print(f"\ningest: {_BATCH * _BATCHES / seconds:,.0f} statistics/s ({len(stream)} batches in {seconds:.2f} s)")


def test_one_at_a_time(tmp_path):
    """The time from a batch to its acknowledgement, when each is waited for."""
    batch = [pb.Event(layer_stats=full_stats(name)) for name in names()]
    with serving(tmp_path) as client:
        experiment_id = new_id()
        client.append(experiment_id, [begin()])
        start = time.perf_counter()
        for place in range(50):
            client.append(experiment_id, batch, offset=1 + place * _BATCH)
        seconds = time.perf_counter() - start
    print(f"\na stream, a batch of {_BATCH}, its acknowledgement: {seconds / 50 * 1e3:.1f} ms")


def test_a_large_store(tmp_path: Path):
    """10,000 lines of 96 tensors: open, list, get, compare."""
    log = tmp_path / LOG_NAME
    with log.open("wb") as file:
        for number in range(_LINES):
            experiment = pb.Experiment(
                experiment_id=new_id(),
                timestamp="2026-11-05 15:30:00",
                command="quantizer run mamba-370m --quantize",
                config=pb.ExperimentConfig(model="mamba-370m", w_bits=8, a_bits=8),
                layer_stats=[full_stats(name) for name in names()],
                results=pb.Results(accuracy=0.5, perplexity=9.0 + number / 1000),
                status=pb.EXPERIMENT_STATUS_COMPLETED,
                schema_version=1,
            )
            file.write(encode_line(record_from_experiment(experiment, events=99)))
    start = time.perf_counter()
    with serving(tmp_path) as client:
        opened = time.perf_counter() - start
        print(f"\nopen: {opened:.2f} s for {log.stat().st_size / 1e6:.0f} MB")
        for what, call in (
            ("list --last 50", lambda: client.list(order_by="number desc", page_size=50)),
            ("list of 1000", lambda: client.list(page_size=1000)),
            ("get", lambda: client.get("5000")),
            ("status", lambda: client.status(new_id())),
        ):
            call()
            start = time.perf_counter()
            for _ in range(10):
                call()
            print(f"{what}: {(time.perf_counter() - start) * 100:.2f} ms")
        assert client.list().total_size == _LINES
