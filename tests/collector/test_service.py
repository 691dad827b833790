"""The other calls, through a real server: compare, export, and what the store tells of itself."""

import grpc
from qlog.v1 import collector_pb2 as wire

from collector.store import LOG_NAME
from tests.collector.builders import (
    LEGACY_LINE,
    begin,
    new_id,
    refused,
    serving,
    stats,
)

BASIC, FULL = wire.EXPERIMENT_VIEW_BASIC, wire.EXPERIMENT_VIEW_FULL


def test_experiments_are_compared(client, log_dir):
    """Aligned rows, typed cells, BASIC experiments; lines of the earlier logger and running ones take part."""
    with (log_dir / LOG_NAME).open("ab") as file:
        file.write(LEGACY_LINE)
    client.record(tensors=2, accuracy=0.5)
    client.record(tensors=3, accuracy=0.75)
    running = new_id()
    client.append(running, [begin(), stats("layer_0.x_proj:input", high=9.0)])
    request = wire.CompareExperimentsRequest(refs=["1", "2", "0", running])
    answer = client.stub.CompareExperiments(request, timeout=10)
    assert [e.number for e in answer.experiments] == [1, 2, 0, 0]
    assert not answer.experiments[3].HasField("number")
    (accuracy,) = [row for row in answer.results if row.name == "accuracy"]
    assert accuracy.unit == wire.METRIC_UNIT_FRACTION
    assert accuracy.cells[1].difference == 25.0
    assert accuracy.cells[1].exceeds_stderr
    assert not accuracy.cells[2].HasField("exceeds_stderr")
    assert not accuracy.cells[3].HasField("value")
    assert [row.name for row in answer.tensors] == [f"layer_{i}.x_proj:input" for i in range(3)]
    assert [cell.HasField("stats") for cell in answer.tensors[2].cells] == [False, True, False, False]
    assert answer.tensors[0].cells[3].stats.before_percentile.max == 9.0
    (model,) = [row for row in answer.config if row.key == "model"]
    assert [cell.value.string_value for cell in model.cells][2] == "mamba-370m"
    assert model.differs


def test_a_comparison_takes_two_or_more(client):
    """One is too few, too many are too many."""
    client.record()
    for refs in ([], ["0"], ["0"] * 65):
        refused(client.stub.CompareExperiments, wire.CompareExperimentsRequest(refs=refs))


def test_the_export_is_the_log_byte_for_byte(client, log_dir):
    """Lines of the earlier logger, damaged ones and our own as they stand, in chunks below a megabyte."""
    data = LEGACY_LINE + b"damage\n"
    with (log_dir / LOG_NAME).open("ab") as file:
        file.write(data)
    for _ in range(3):
        client.record(tensors=1500)
    chunks = [r.chunk for r in client.stub.ExportExperiments(wire.ExportExperimentsRequest(), timeout=30)]
    assert b"".join(chunks) == (log_dir / LOG_NAME).read_bytes()
    assert len(chunks) > 1
    assert max(map(len, chunks)) < 1 << 20
    refused(list, client.stub.ExportExperiments(wire.ExportExperimentsRequest(filter="x ="), timeout=30))
    refused(list, client.stub.ExportExperiments(wire.ExportExperimentsRequest(format=9), timeout=30))


def test_the_store_tells_what_it_is(client, log_dir):
    """Path, size, counts, version."""
    client.record()
    client.append(new_id(), [begin()])
    info = client.stub.GetStoreInfo(wire.GetStoreInfoRequest(), timeout=10)
    assert info.path == str(log_dir / LOG_NAME)
    assert info.size_bytes == (log_dir / LOG_NAME).stat().st_size
    assert (info.experiments, info.corrupt_lines, info.running, info.read_only) == (1, 0, 1, False)
    assert info.version
    assert info.open_time.seconds > 0


def test_a_read_only_store_takes_no_experiments(log_dir):
    """FAILED_PRECONDITION, and everything else works."""
    with serving(log_dir) as client:
        client.record()
    with serving(log_dir, read_only=True) as client:
        message, found = refused(client.append, new_id(), [begin()], code=grpc.StatusCode.FAILED_PRECONDITION)
        assert "reading only" in message
        assert found["ErrorInfo"].reason == "STORE_READ_ONLY"
        assert client.get("-1").number == 0
        assert client.stub.GetStoreInfo(wire.GetStoreInfoRequest(), timeout=10).read_only
