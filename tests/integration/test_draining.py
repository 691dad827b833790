"""A collector in a process of its own, from its first health check to its last word; what it reads again on SIGHUP."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from qlog.v1 import collector_pb2 as wire
from qlog.v1 import collector_pb2_grpc
from qlog.v1.addresses import CLIENT_KEEPALIVE, SERVER_KEEPALIVE

from collector.server import SERVICE_NAME
from tests.collector.builders import connected, details, new_id, requests, whole
from tests.integration.test_operations import bearer, channel, code_of, until
from tests.processes import serving
from tests.secured import TOKENS, Secured, secret, secured

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def still_open(batches: Iterator[Any], over: threading.Event) -> Iterator[Any]:
    """Requests, and then nothing for as long as the stream lasts."""
    yield from batches
    over.wait(60)


def test_a_collector_drains_on_sigterm(tmp_path: Path) -> None:
    """Healthy and described by reflection; then NOT_SERVING, streams end UNAVAILABLE with RetryInfo, whatever was
    acknowledged is there at the next start; it exits with 0, without waiting for those who only ask for its health."""
    words = ["serve", "--port", "0", "--log_dir", str(tmp_path)]
    name, over = new_id(), threading.Event()
    sent = whole()[:-1]
    with serving("collector.entry", *words) as (process, endpoint), connected(endpoint) as (stub, connection):
        health = health_pb2_grpc.HealthStub(connection)
        for service in ("", SERVICE_NAME):
            assert health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status == SERVING
        known = ProtoReflectionDescriptorDatabase(connection)
        assert {SERVICE_NAME, "grpc.health.v1.Health"} <= set(known.get_services())
        assert known.FindFileContainingSymbol(SERVICE_NAME).name == "qlog/v1/collector.proto"
        healths = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE_NAME), timeout=60)
        assert next(healths).status == SERVING
        append = stub.AppendExperiment(still_open(requests(name, sent), over), timeout=60)
        assert next(append).committed_offset == len(sent)
        watch = stub.WatchExperiments(wire.WatchExperimentsRequest(experiment_id=name), timeout=60)
        assert next(watch).experiment_id == name
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert next(healths).status == NOT_SERVING
        for stream in (append, watch):
            with pytest.raises(grpc.RpcError) as caught:
                list(stream)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert details(caught.value)["RetryInfo"].retry_delay.ToMilliseconds() > 0
        assert process.wait(30) == 0
        over.set()
        print(f"drained in {time.monotonic() - began:.2f} s")
    with serving("collector.entry", *words) as (_, endpoint), connected(endpoint) as (stub, _):
        asked = wire.GetAppendStatusRequest(experiment_id=name)
        assert stub.GetAppendStatus(asked, timeout=10).committed_offset == len(sent)


def test_certificates_and_tokens_are_read_again(tmp_path: Path) -> None:
    """On SIGHUP, and when the files change: the new ones count at once for new connections and calls; files that cannot
    be used are told of in one line each, and what was read before stays."""
    errors: list[str] = []
    files = secured(tmp_path / "tls")
    words = ["serve", "--port", "0", "--log_dir", str(tmp_path / "store"), "--log_format", "json", *files.server]

    def query(trusted: Secured, token: str) -> str:
        with channel(trusted, endpoint) as connection:
            stub = collector_pb2_grpc.CollectorServiceStub(connection)
            return code_of(lambda: stub.GetStoreInfo(wire.GetStoreInfoRequest(), metadata=bearer(token), timeout=10))

    def told(text: str) -> list[Any]:
        return [entry for entry in map(json.loads, errors) if text in entry["event"]]

    with serving("collector.entry", *words, errors=errors) as (process, endpoint):
        before = Secured(files.directory, str(tmp_path / "old-ca.pem"), files.cert, files.key, files.tokens)
        Path(before.ca).write_bytes(Path(files.ca).read_bytes())
        assert query(before, TOKENS["reader"]) == "OK"
        # New files of another authority, and another token.
        secured(files.directory)
        secret(Path(files.tokens), "reader new-name new-secret\n")
        process.send_signal(signal.SIGHUP)
        until(lambda: told("the token file"))
        assert query(files, "new-secret") == "OK"
        assert query(files, TOKENS["reader"]) == "UNAUTHENTICATED"
        assert query(before, "new-secret") == "UNAVAILABLE"
        assert [entry["level"] for entry in told("was read again")] == ["info", "info"]
        # What cannot be used.
        secret(Path(files.tokens), "king new-name new-secret\n")
        secret(Path(files.key), "no key\n")
        process.send_signal(signal.SIGHUP)
        until(lambda: told("stay"))
        assert query(files, "new-secret") == "OK"
        assert query(files, "new-secret") == "OK"
        assert sorted(entry["event"].rpartition("; ")[2] for entry in told("stay")) == [
            "the certificate read before stays",
            "the tokens read before stay",
        ]
        assert "secret" not in "".join(entry["event"] for entry in told("stay"))
        # Without a signal: the file's own change is seen.
        secret(Path(files.tokens), "reader third-name third-secret\n")
        until(lambda: query(files, "third-secret") == "OK")
        assert process.poll() is None


def test_keepalive_of_both_sides_fits_together() -> None:
    """No client pings more often than a server lets it, with calls or without."""
    client, server = dict(CLIENT_KEEPALIVE), dict(SERVER_KEEPALIVE)
    assert client["grpc.keepalive_time_ms"] >= server["grpc.http2.min_recv_ping_interval_without_data_ms"]
    assert client["grpc.http2.max_pings_without_data"] == 0
    assert server["grpc.keepalive_time_ms"] > server["grpc.keepalive_timeout_ms"] > 0


@pytest.mark.long
def test_a_quiet_connection_stays(tmp_path: Path) -> None:
    """A watch that hears nothing is pinged through, at the fastest pace that clients have, and then hears the news."""
    with serving("collector.entry", "serve", "--port", "0", "--log_dir", str(tmp_path)) as (_, endpoint):
        options = [*dict(CLIENT_KEEPALIVE).items(), ("grpc.keepalive_time_ms", 10_000)]
        with grpc.insecure_channel(endpoint, options) as connection:
            stub = collector_pb2_grpc.CollectorServiceStub(connection)
            watch = stub.WatchExperiments(wire.WatchExperimentsRequest(), timeout=120)
            time.sleep(75)
            list(stub.AppendExperiment(requests(new_id(), whole()), timeout=20))
            assert next(watch).experiment_id
            watch.cancel()
