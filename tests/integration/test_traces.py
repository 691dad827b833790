"""Traces: spans that a real receiver of OTLP gets, and one line where they cannot be sent."""

import sys
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from qlog.v1 import collector_pb2 as wire
from qlog.v1.serving.traces import traces_are_asked_for

from collector.entry import main as collector
from quantizer.entry import run_command as quantizer
from tests.collector.builders import connected, new_id, requests, whole
from tests.integration.test_operations import code_of
from tests.processes import serving

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.resources: list[Any] = []

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.resources.extend(request.resource_spans)
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self) -> list[Any]:
        return [span for resource in self.resources for scope in resource.scope_spans for span in scope.spans]


@contextmanager
def receiving() -> Iterator[tuple[Receiver, str]]:
    receiver = Receiver()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield receiver, f"http://127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def plain(attributes: Any) -> dict[str, Any]:
    found = {}
    for attribute in attributes:
        value = attribute.value
        kind = value.WhichOneof("value")
        found[attribute.key] = (
            [item.string_value for item in value.array_value.values] if kind == "array_value" else getattr(value, kind)
        )
    return found


def test_calls_become_spans_on_the_callers_trace(tmp_path: Path) -> None:
    """Each call of ours is a span with its method, status, caller and experiments; the last ones come when it stops."""
    with receiving() as (receiver, url):
        words = ["serve", "--port", "0", "--log_dir", str(tmp_path), "--otlp_endpoint", url]
        with serving("collector.entry", *words) as (process, endpoint), connected(endpoint) as (stub, _):
            name = new_id()
            trace = (("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01"),)
            list(stub.AppendExperiment(requests(name, whole()), metadata=trace, timeout=30))
            lost = wire.GetExperimentRequest(ref="77")
            assert code_of(lambda: stub.GetExperiment(lost, timeout=30)) == "NOT_FOUND"
            process.terminate()
            assert process.wait(30) == 0
        append, get = receiver.spans()
        assert {plain(resource.resource.attributes)["service.name"] for resource in receiver.resources} == {
            "qlog-collector"
        }
        assert (append.trace_id.hex(), append.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
        assert get.trace_id.hex() != TRACE_ID
        assert (append.name, get.name) == (
            "qlog.v1.CollectorService/AppendExperiment",
            "qlog.v1.CollectorService/GetExperiment",
        )
        told = plain(append.attributes)
        assert (told["rpc.method"], told["rpc.grpc.status_code"], told["enduser.id"]) == (
            "AppendExperiment",
            0,
            "anonymous",
        )
        assert (told["qlog.subjects"], told["qlog.events"]) == ([name], len(whole()))
        assert plain(get.attributes)["rpc.grpc.status_code"] == grpc.StatusCode.NOT_FOUND.value[0]
        assert append.end_time_unix_nano > append.start_time_unix_nano > 0


@pytest.mark.parametrize(("main", "name"), [(collector, "collector"), (quantizer, "quantizer")])
def test_traces_that_cannot_be_sent_are_one_line(
    main: Any, name: str, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    """An address that is none, packages that are not there: exit 1, what to do, and nothing has begun."""
    given = ["serve", "--port", "0", "--log_dir", str(tmp_path / "x"), "--otlp_endpoint"]
    assert main([*given, "localhost:4317"]) == 1
    assert "write it as http://HOST:4317" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    assert main([*given, "http://127.0.0.1:1"]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert captured.err.startswith(f"{name}: ")
    assert "pip install '.[otel]'" in captured.err
    assert not (tmp_path / "x").exists()


def test_traces_are_off_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the option, or OpenTelemetry's own variables, one of which turns everything off."""
    for variable in ("OTEL_SDK_DISABLED", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(variable, raising=False)
    assert not traces_are_asked_for(None)
    assert not traces_are_asked_for("")
    assert traces_are_asked_for("http://127.0.0.1:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    assert traces_are_asked_for(None)
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert not traces_are_asked_for("http://127.0.0.1:4317")
