"""What stands around every call: one table from errors to statuses, and no call without it."""

import threading

import grpc
import pytest
from google.rpc import code_pb2
from qlog.v1 import collector_pb2 as wire
from qlog.v1.serving.listening import Listening

from collector import errors
from collector.server import SERVICE_NAME
from collector.service import CollectorService
from collector.statuses import STATUSES, status_of
from tests.collector.builders import begin, connected, details, new_id, requests, serving


def all_errors(kind=errors.CollectorError):
    return [kind, *(error for child in kind.__subclasses__() for error in all_errors(child))]


def test_every_error_has_a_status():
    """The table is total, and has nothing that is no error; reasons are names of their own."""
    assert set(STATUSES) == set(all_errors())
    assert {kind.__name__ for kind in all_errors()} == set(errors.__all__)
    reasons = [reason for _, reason in STATUSES.values()]
    assert len(set(reasons)) == len(reasons)


@pytest.mark.parametrize("kind", all_errors())
def test_every_status_carries_its_details(kind):
    """ErrorInfo always; BadRequest with the field for INVALID_ARGUMENT; RetryInfo where it is worth trying again."""
    if kind is errors.OffsetGapError:
        error = kind("id", 5, 2)
    elif issubclass(kind, errors.InvalidRequestError):
        error = kind("refs[1]", "wrong")
    else:
        error = kind("wrong")
    status = status_of(error)
    names = [detail.TypeName() for detail in status.details]
    assert names[0] == "google.rpc.ErrorInfo"
    assert ("google.rpc.BadRequest" in names) == (status.code == code_pb2.INVALID_ARGUMENT)
    # What is too large stays so.
    helps = (
        status.code in (code_pb2.UNAVAILABLE, code_pb2.RESOURCE_EXHAUSTED) and kind is not errors.RequestTooLargeError
    )
    assert ("google.rpc.RetryInfo" in names) == helps


def test_every_rpc_has_a_handler():
    """No call of the contract is left to the generated base class."""
    service = wire.DESCRIPTOR.services_by_name["CollectorService"]
    assert {method.name for method in service.methods} <= set(vars(CollectorService))


def test_every_rpc_is_wrapped(log_dir):
    """Each call of a draining server is UNAVAILABLE with RetryInfo: none reaches its handler without the guard."""
    service = wire.DESCRIPTOR.services_by_name["CollectorService"]
    with serving(log_dir) as client:
        client.server.gate.drain()
        for method in service.methods:
            kind = (
                f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
            )
            call = getattr(client.channel, kind)(
                f"/{SERVICE_NAME}/{method.name}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=lambda data: data,
            )
            request = getattr(wire, method.input_type.name)()
            with pytest.raises(grpc.RpcError) as caught:
                _consume(call(iter([request]) if method.client_streaming else request, timeout=10))
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE, method.name
            found = details(caught.value)
            assert found["ErrorInfo"].reason == "DRAINING"
            assert found["RetryInfo"].retry_delay.ToMilliseconds() > 0


def test_mistakes_of_our_own_tell_nothing_of_the_inside(log_dir, monkeypatch, caplog):
    """An exception that nobody foresaw is INTERNAL with an incident's number; its text is only in the log."""
    monkeypatch.setattr("collector.views.Views.get", lambda *_, **__: {}["secret"])
    with serving(log_dir) as client, pytest.raises(grpc.RpcError) as caught:
        client.get("0")
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in caught.value.details()
    incident = caught.value.details().split()[3]
    assert incident in caplog.text
    assert "KeyError: 'secret'" in caplog.text


def test_streams_cannot_starve_the_other_calls(log_dir):
    """Streams beyond the limit are refused at once; unary calls are answered meanwhile; an ended stream makes room."""
    with serving(log_dir, max_streams=3) as client:
        watches = [client.watch() for _ in range(3)]
        while client.server.gate.streams()[0] < 3:
            client.list()
        with pytest.raises(grpc.RpcError) as caught:
            client.append(new_id(), [begin()])
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details(caught.value)["ErrorInfo"].reason == "TOO_MANY_STREAMS"
        assert client.list().total_size == 0
        for watch in watches:
            watch.cancel()
        while client.server.gate.streams()[0]:
            client.list()
        client.append(new_id(), [begin()])


def test_a_server_that_stops_ends_streams_and_health_says_so(log_dir):
    """Drain: NOT_SERVING, streams end with UNAVAILABLE and RetryInfo, what was sent before is acknowledged and kept."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with serving(log_dir) as client:
        health = health_pb2_grpc.HealthStub(client.channel)
        for name in ("", SERVICE_NAME):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        experiment_id = new_id()
        watch = client.watch()
        silence = threading.Event()
        stream = client.stub.AppendExperiment(_then_silence(experiment_id, silence), timeout=30)
        assert next(stream).committed_offset == 1
        client.server._health.enter_graceful_shutdown()
        answer = health.Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        client.server.stop()
        for call in (watch, stream):
            with pytest.raises(grpc.RpcError) as caught:
                list(call)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "RetryInfo" in details(caught.value)
        silence.set()
    with serving(log_dir) as client:
        assert client.status(experiment_id).committed_offset == 1


def test_streams_that_break_leave_nothing_behind(client):
    """Cancelled, timed out, refused, closed: the stream's place and its thread are free again."""
    over = threading.Event()
    cancelled = client.stub.AppendExperiment(_then_silence(new_id(), over), timeout=30)
    assert next(cancelled).committed_offset == 1
    cancelled.cancel()
    late = client.stub.AppendExperiment(_then_silence(new_id(), over), timeout=0.2)
    with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
        list(late)
    refused = client.stub.AppendExperiment(_then_silence("no id", over), timeout=30)
    with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
        list(refused)
    client.record()
    while client.server.gate.streams()[0] or "collector-append" in [thread.name for thread in threading.enumerate()]:
        client.list()
    over.set()


def _consume(answer):
    return list(answer) if hasattr(answer, "__next__") else answer


def _then_silence(experiment_id, over):
    """One batch, then nothing for a while, as from an experiment that computes."""
    yield from requests(experiment_id, [begin()])
    over.wait(30)


def test_the_calls_can_be_discovered(log_dir):
    """Reflection lists the services."""
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    with serving(log_dir) as client:
        stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=10)
    names = [service.name for service in answer.list_services_response.service]
    assert sorted(names, reverse=True) == [
        SERVICE_NAME,
        "grpc.reflection.v1alpha.ServerReflection",
        "grpc.health.v1.Health",
    ]


def test_a_second_server_cannot_listen_on_the_same_port(log_dir, tmp_path):
    """Else each would get a part of the calls."""
    from collector.fold import CODEC
    from collector.server import Server
    from collector.store import open_store

    with serving(log_dir) as client:
        other = open_store(tmp_path / "other", CODEC)
        with pytest.raises(errors.ListenError, match=str(client.server.port)):
            Server(other, Listening(port=client.server.port), reflection=False)
        other.close()
        with connected(client.server.endpoint) as (stub, _):
            assert stub.GetStoreInfo(wire.GetStoreInfoRequest(), timeout=10).experiments == 0
