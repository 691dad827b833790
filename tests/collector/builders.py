"""What the tests of the collector are built from: events, real servers on port 0, and stores on failing disks."""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from qlog.v1 import collector_pb2 as wire
from qlog.v1 import collector_pb2_grpc
from qlog.v1 import common_pb2 as pb
from qlog.v1.serving.listening import Listening

from collector.batches import Batch
from collector.errors import CollectorError
from collector.files import FileLayer
from collector.fold import CODEC, payload_from_events
from collector.ledger import Receipt
from collector.limits import MAX_STREAMS
from collector.records import Record
from collector.server import Server
from collector.store import LOG_NAME, Store, open_store
from collector.wire import record_from_experiment

LEGACY_LINE = (
    b'{"timestamp": "2025-11-05 15:30:00", "command": "python main.py mamba-370m", "config": {"model": "mamba-370m", '
    b'"w_bits": 8, "a_bits": 8, "percentile_alpha": null, "group_heads": false, "apply_gptq": true, '
    b'"quantize_embedding": false, "quantize_lm_head": false, "calib_data_num": 512, "calib_seqlen": 512}, '
    b'"activation_stats": {"layer_0.x_proj:input": {"before_percentile": {"min": -127.35, "max": 156.82, '
    b'"range": 284.17}, "after_percentile": {"min": -120.5, "max": 145.3, "range": 265.8}, '
    b'"percentile_alpha": 0.9995, "clipped_ratio": 0.0005, "range_reduction": 0.0646}}, '
    b'"reorder_summary": {"enabled": false, "avg_range_reduction": null, "total_layers": 0}, '
    b'"results": {"accuracy": 0.5205, "perplexity": 9.621}}\n'
)


def new_id() -> str:
    """An id as a sender makes it."""
    return str(uuid.uuid4())


def begin(model: str = "mamba-2m", **config: Any) -> pb.Event:
    """The first event."""
    return pb.Event(
        begin=pb.Begin(
            timestamp="2026-11-05 15:30:00",
            command=f"quantizer run {model}",
            config=pb.ExperimentConfig(model=model, w_bits=8, a_bits=8, **config),
        )
    )


def stats(name: str = "layer_0.x_proj:input", high: float = 2.0) -> pb.Event:
    """One tensor."""
    return pb.Event(
        layer_stats=pb.LayerStats(
            name=name,
            before_percentile=pb.ValueRange(min=-1.0, max=high, range=high + 1.0),
            after_percentile=pb.ValueRange(min=-1.0, max=1.0, range=2.0),
            percentile_alpha=0.9995,
            clipped_ratio=0.0005,
            range_reduction=0.25,
            count=1024,
            observer="ema",
        )
    )


def result(accuracy: float, stderr: float = 0.01) -> pb.Event:
    """One task's result."""
    task = pb.TaskResult(task="cloze", metrics=[pb.Metric(name="acc", value=accuracy, stderr=stderr)], n=100)
    return pb.Event(evaluation_result=pb.EvaluationResult(results=pb.Results(accuracy=accuracy, tasks=[task])))


def finish(status: pb.ExperimentStatus = pb.EXPERIMENT_STATUS_COMPLETED, **more: Any) -> pb.Event:
    """The last event."""
    return pb.Event(finish=pb.Finish(status=status, duration_s=1.5, **more))


def whole(tensors: int = 2, model: str = "mamba-2m", accuracy: float = 0.5) -> list[pb.Event]:
    """All events of one experiment."""
    return [begin(model), *(stats(f"layer_{i}.x_proj:input") for i in range(tensors)), result(accuracy), finish()]


def requests(
    experiment_id: str, events: Sequence[pb.Event], *, offset: int = 0, size: int = 1000
) -> Iterator[wire.AppendExperimentRequest]:
    """The events in batches of `size`."""
    for start in range(0, len(events), size):
        batch = events[start : start + size]
        yield wire.AppendExperimentRequest(experiment_id=experiment_id, offset=offset + start, events=batch)


@dataclass
class Client:
    """A client of one server."""

    stub: Any
    channel: grpc.Channel
    server: Server

    def append(self, experiment_id: str, events: Sequence[pb.Event], *, offset: int = 0, size: int = 1000) -> list[Any]:
        """Send events, take the answers."""
        stream = requests(experiment_id, events, offset=offset, size=size)
        return list(self.stub.AppendExperiment(stream, timeout=30))

    def record(self, **kind: Any) -> str:
        """Send one whole experiment; its id."""
        experiment_id = new_id()
        self.append(experiment_id, whole(**kind))
        return experiment_id

    def get(self, ref: str, view: Any = wire.EXPERIMENT_VIEW_FULL) -> pb.Experiment:
        """One experiment."""
        return self.stub.GetExperiment(wire.GetExperimentRequest(ref=ref, view=view), timeout=10).experiment

    def list(self, **query: Any) -> Any:
        """A page."""
        return self.stub.ListExperiments(wire.ListExperimentsRequest(**query), timeout=10)

    def status(self, experiment_id: str) -> Any:
        """How much is on disk."""
        return self.stub.GetAppendStatus(wire.GetAppendStatusRequest(experiment_id=experiment_id), timeout=10)

    def watch(self, **request: Any) -> Any:
        """A stream."""
        return self.stub.WatchExperiments(wire.WatchExperimentsRequest(**request), timeout=30)


@contextmanager
def connected(endpoint: str) -> Iterator[tuple[Any, grpc.Channel]]:
    """A stub and its channel."""
    options = [("grpc.max_receive_message_length", 256 << 20), ("grpc.max_reconnect_backoff_ms", 200)]
    with grpc.insecure_channel(endpoint, options=options) as channel:
        yield collector_pb2_grpc.CollectorServiceStub(channel), channel


@contextmanager
def serving(
    log_dir: Path,
    *,
    read_only: bool = False,
    layer: FileLayer | None = None,
    max_streams: int = MAX_STREAMS,
    listening: Listening | None = None,
) -> Iterator[Client]:
    """A real collector on a free port, and a client of it."""
    store = open_store(log_dir, CODEC, read_only=read_only, layer=layer, allow_network_fs=True)
    server = Server(store, listening or Listening(), reflection=True, max_streams=max_streams)
    server.start()
    try:
        with connected(server.endpoint) as (stub, channel):
            yield Client(stub, channel, server)
    finally:
        server.stop()


@contextmanager
def opened(log_dir: Path, *, layer: FileLayer | None = None, read_only: bool = False) -> Iterator[Store]:
    """A store without a server."""
    store = open_store(log_dir, CODEC, layer=layer, read_only=read_only, allow_network_fs=True)
    try:
        yield store
    finally:
        store.close()


def batch(experiment_id: str, events: Iterable[pb.Event], offset: int = 0) -> Batch:
    """A batch as the service makes it."""
    kinds = [event.WhichOneof("event") for event in events]
    payload = payload_from_events(events)
    finishes = bool(kinds) and kinds[-1] == "finish"
    return Batch(experiment_id, offset, len(kinds), kinds.count("layer_stats"), finishes, payload)


def submit(store: Store, *batches: Batch) -> list[Receipt | CollectorError]:
    """Submit batches, wait for their answers."""
    answers: SimpleQueue[Receipt | CollectorError] = SimpleQueue()
    for item in batches:
        store.submit(item, answers.put)
    return [answers.get(timeout=30) for _ in batches]


def record(store: Store, **kind: Any) -> str:
    """Store one whole experiment; its id."""
    experiment_id = new_id()
    (answer,) = submit(store, batch(experiment_id, whole(**kind)))
    assert isinstance(answer, Receipt), answer
    assert answer.finished
    return experiment_id


def stored_record(number: int) -> Record:
    """A record as the store has it, that differs by its number."""
    experiment = pb.Experiment(
        experiment_id=f"{number:08x}-0000-7000-8000-000000000000",
        timestamp="2026-11-05 15:30:00",
        command=f"quantizer run mamba-{number}m",
        config=pb.ExperimentConfig(model=f"mamba-{number}m", w_bits=4 + number % 2 * 4, a_bits=8),
        layer_stats=[stats(f"layer_{place}.x_proj:input").layer_stats for place in range(number % 4)],
        results=pb.Results(accuracy=number / 1000, tasks=[pb.TaskResult(task=f"task_{number % 5}", n=number)]),
        status=pb.EXPERIMENT_STATUS_COMPLETED,
        schema_version=1,
    )
    return record_from_experiment(experiment, events=3 + number % 4)


def log_lines(log_dir: Path) -> list[bytes]:
    """The lines of a log."""
    return (log_dir / LOG_NAME).read_bytes().splitlines(keepends=True)


def details(error: grpc.RpcError) -> dict[str, Any]:
    """The google.rpc details of an error, by the name of their message."""
    status = rpc_status.from_call(error)
    assert status is not None, f"no details in {error}"
    kinds = {kind.DESCRIPTOR.full_name: kind for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest)}
    kinds[error_details_pb2.RetryInfo.DESCRIPTOR.full_name] = error_details_pb2.RetryInfo
    found = {}
    for packed in status.details:
        message = kinds[packed.TypeName()]()
        packed.Unpack(message)
        found[packed.TypeName().rpartition(".")[2]] = message
    return found


def refused(call, *args, code=grpc.StatusCode.INVALID_ARGUMENT, **kwargs) -> tuple[str, dict]:
    """The message and details with which a call is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*args, **kwargs)
    assert caught.value.code() is code, caught.value
    assert "\n" not in caught.value.details()
    return caught.value.details(), details(caught.value)
