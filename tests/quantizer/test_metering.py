"""What an operator sees of a quantizer: metrics of its calls and jobs, audit lines of what others submit."""

import io
import json
import logging
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from qlog.v1 import quantizer_pb2 as pb
from qlog.v1.logs import start_logging
from qlog.v1.quantizer_pb2_grpc import QuantizerServiceStub
from qlog.v1.serving.audit import Audit
from qlog.v1.serving.listening import Listening

from quantizer.auth import ROLES
from quantizer.serve import QuantizerServer, ServeOptions
from quantizer.settings import Settings
from tests.quantizer.fake_workers import scripted_worker

HOSTILE = "m\n2026-11-25T00:00:00Z quantizer info: forged\x1b[2J"


@pytest.fixture
def log() -> io.StringIO:
    stream = io.StringIO()
    start_logging("quantizer", "json", "info", stream)
    return stream


@pytest.fixture
def server(tmp_path: Path, log: io.StringIO) -> Iterator[QuantizerServer]:
    options = ServeOptions(Listening(), tmp_path, "cpu", metrics_port=0)
    settings = Settings(tmp_path / "logs", None)
    said = logging.getLogger("quantizer").info
    server = QuantizerServer(options, settings, log=said, worker_main=scripted_worker, observers=[Audit(ROLES)])
    yield server
    server.stop()


def test_calls_are_counted_and_submissions_are_told(server: QuantizerServer, log: io.StringIO) -> None:
    """Metrics have calls by code, jobs by state, the spool; the log has who submitted which model, on one line."""
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = QuantizerServiceStub(channel)
        stub.ListDevices(pb.ListDevicesRequest(), timeout=30)
        submission = pb.SubmitExperimentRequest(command=HOSTILE)
        submission.spec.model = HOSTILE
        with pytest.raises(grpc.RpcError) as caught:
            stub.SubmitExperiment(submission, timeout=30)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with urllib.request.urlopen(server.metrics_url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    assert 'qlog_rpc_handled_total{code="OK",method="QuantizerService.ListDevices"} 1.0' in lines
    assert 'qlog_rpc_handled_total{code="INVALID_ARGUMENT",method="QuantizerService.SubmitExperiment"} 1.0' in lines
    assert {'qlog_jobs{state="RUNNING"} 0.0', "qlog_spool_events 0.0"} <= set(lines)
    calls = [entry for entry in map(json.loads, log.getvalue().splitlines()) if entry["event"] == "call"]
    assert [(call["method"], call["who"], call["subjects"], call["code"]) for call in calls] == [
        ("SubmitExperiment", "anonymous", [HOSTILE], "INVALID_ARGUMENT")
    ]


def test_a_quantizer_says_that_it_stops(server: QuantizerServer) -> None:
    """Healthy and described by reflection; NOT_SERVING for whoever watches, as soon as it takes no more jobs."""
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        names = set(ProtoReflectionDescriptorDatabase(channel).get_services())
        assert {"qlog.v1.QuantizerService", "google.longrunning.Operations", "grpc.health.v1.Health"} <= names
        asked = health_pb2.HealthCheckRequest(service="qlog.v1.QuantizerService")
        healths = health_pb2_grpc.HealthStub(channel).Watch(asked, timeout=60)
        assert next(healths).status == health_pb2.HealthCheckResponse.SERVING
        server.stop()
        assert next(healths).status == health_pb2.HealthCheckResponse.NOT_SERVING
