"""What an operator sees of real servers: audit lines, metrics, health, and how they stop."""

import io
import json
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from prometheus_client.parser import text_string_to_metric_families
from qlog.v1 import collector_pb2 as wire
from qlog.v1 import collector_pb2_grpc
from qlog.v1 import common_pb2 as pb
from qlog.v1.logs import start_logging
from qlog.v1.serving.audit import Audit
from qlog.v1.serving.listening import Listening, access_of
from qlog.v1.serving.metering import Metering

from collector.auth import ROLES
from collector.server import Server
from tests.collector.builders import finish, new_id, opened, requests, whole
from tests.processes import serving, started
from tests.secured import TOKENS, Secured, secret, secured

HOSTILE = "m\n2026-11-25T00:00:00Z collector info: forged\x1b[2J\r\x00\u202e\u2028"


def until(condition: Callable[[], Any]) -> Any:
    """The first true answer; fails after half a minute."""
    end = time.monotonic() + 30
    while not (found := condition()):
        assert time.monotonic() < end, condition
        time.sleep(0.02)
    return found


def scraped(url: str, *, context: ssl.SSLContext | None = None, token: str = "") -> dict[str, float]:
    """The samples of /metrics, by name and labels."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:
        text = answer.read().decode()
    return {
        sample.name + "".join(f",{key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def second_line(process: Any) -> str:
    """Where the metrics are."""
    line: str = process.stdout.readline()
    return line.rpartition(" ")[2].strip()


@pytest.fixture
def files(tmp_path: Path) -> Secured:
    return secured(tmp_path / "tls")


def channel(files: Secured, endpoint: str, *own: bytes) -> grpc.Channel:
    return grpc.secure_channel(endpoint, grpc.ssl_channel_credentials(Path(files.ca).read_bytes(), *own))


def bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


def code_of(call: Callable[[], Any]) -> str:
    try:
        answer = call()
        if hasattr(answer, "__next__"):
            list(answer)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def test_the_log_tells_who_did_what_from_where_and_keeps_secrets(files: Secured, tmp_path: Path) -> None:
    """Each call is a line of JSON: principal, role, method, subject, peer, code, duration; refused ones are warnings.
    What clients wrote never ends a line; tokens are in none, whatever they are sent as."""
    errors: list[str] = []
    words = [
        "serve",
        "--port",
        "0",
        "--log_dir",
        str(tmp_path / "store"),
        "--log_format",
        "json",
        "--log_level",
        "debug",
    ]
    with (
        serving("collector.entry", *words, *files.server, errors=errors) as (process, endpoint),
        channel(files, endpoint) as connection,
    ):
        stub = collector_pb2_grpc.CollectorServiceStub(connection)
        name = new_id()
        admin = bearer(TOKENS["admin"])
        assert (
            code_of(
                lambda: stub.AppendExperiment(
                    requests(name, whole(model=HOSTILE)), metadata=bearer(TOKENS["writer"]), timeout=20
                )
            )
            == "OK"
        )
        annotation = wire.AnnotateExperimentRequest(ref=HOSTILE)
        assert code_of(lambda: stub.AnnotateExperiment(annotation, metadata=admin, timeout=20)) != "OK"
        asked = wire.ListExperimentsRequest(filter=HOSTILE)
        trace = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        stub_list = lambda token, **more: stub.ListExperiments(  # noqa: E731 - one line, used thrice
            asked, metadata=[*bearer(token), trace, ("x-note", "n")], timeout=20, **more
        )
        code_of(lambda: stub_list(TOKENS["reader"]))
        assert code_of(lambda: stub_list("wrong-token-value")) == "UNAUTHENTICATED"
        assert code_of(lambda: stub.BackupStore(wire.BackupStoreRequest(), metadata=bearer(TOKENS["reader"]))) == (
            "PERMISSION_DENIED"
        )
        until(lambda: sum('"BackupStore"' in line for line in errors))
        process.terminate()
        process.wait(30)
    text = "".join(errors)
    assert not any(token in text for token in (*TOKENS.values(), "wrong-token-value"))
    lines = [json.loads(line) for line in errors]
    assert text.isascii()
    assert "\x1b" not in text
    calls = [line for line in lines if line["event"] == "call"]
    told = [(call["method"], call["level"], call["who"], call["roles"], call["code"]) for call in calls]
    assert told[:1] + told[-3:] == [
        ("AppendExperiment", "info", "writer-name", ["writer"], "OK"),
        ("ListExperiments", "debug", "reader-name", ["reader"], calls[-3]["code"]),
        ("ListExperiments", "warning", "unknown", [], "UNAUTHENTICATED"),
        ("BackupStore", "warning", "reader-name", ["reader"], "PERMISSION_DENIED"),
    ]
    assert calls[0]["subjects"] == [name]
    assert calls[0]["events"] == len(whole())
    assert (calls[1]["method"], calls[1]["level"], calls[1]["subjects"]) == ("AnnotateExperiment", "info", [HOSTILE])
    assert (calls[2]["filter"], calls[2]["trace"]) == (HOSTILE, trace[1])
    assert all(re.fullmatch(r"ipv[46]:\S+:\d+", call["peer"]) and call["duration_ms"] > 0 for call in calls)


def test_certificates_are_told_by_their_names(tmp_path: Path) -> None:
    """Who came with a client certificate: the name that the token file gives it, and that in the certificate itself."""
    authority = trustme.CA()
    names = {name: authority.issue_cert("127.0.0.1", common_name=name) for name in ("server", "ann", "eve\nforged")}
    pem = {name: b"".join(blob.bytes() for blob in issued.cert_chain_pems) for name, issued in names.items()}
    (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
    (tmp_path / "server.pem").write_bytes(pem["server"])
    where = Listening(
        tls_cert=str(tmp_path / "server.pem"),
        tls_key=secret(tmp_path / "server.key", names["server"].private_key_pem.bytes().decode()),
        tls_client_ca=str(tmp_path / "ca.pem"),
        token_file=secret(tmp_path / "tokens", "writer laptop-of-ann cert:ann\n"),
    )
    stream = io.StringIO()
    start_logging("collector", "text", "info", stream)
    with opened(tmp_path / "store") as store:
        server = Server(store, where, reflection=False, observers=[Audit(ROLES)])
        server.start()
        for name, code in (("ann", "OK"), ("eve\nforged", "UNAUTHENTICATED")):
            own = grpc.ssl_channel_credentials(
                authority.cert_pem.bytes(), names[name].private_key_pem.bytes(), pem[name]
            )
            with grpc.secure_channel(server.endpoint, own) as connection:
                stub = collector_pb2_grpc.CollectorServiceStub(connection)
                asked = wire.GetAppendStatusRequest(experiment_id=new_id())
                assert code_of(lambda stub=stub, asked=asked: stub.GetAppendStatus(asked, timeout=20)) == code
        server.stop()
    known, unknown = stream.getvalue().splitlines()
    assert " who=laptop-of-ann roles=writer " in known
    assert " certificate=ann " in known
    assert " warning: call " in unknown
    assert " who=unknown " in unknown
    assert r' certificate="eve\nforged"' in unknown


def test_a_log_that_nobody_reads_holds_up_no_call(tmp_path: Path) -> None:
    """A pipe that is full long since: calls are answered, and it stops when it is told to."""
    process = started("collector.entry", "serve", "--port", "0", "--log_dir", str(tmp_path))
    try:
        assert process.stdout is not None
        endpoint = process.stdout.readline().partition("listening on ")[2].split()[0].rstrip(",")
        with grpc.insecure_channel(endpoint) as connection:
            stub = collector_pb2_grpc.CollectorServiceStub(connection)
            asked = wire.GetAppendStatusRequest(experiment_id=new_id())
            for _ in range(420):  # More lines than a pipe takes: 64 KiB of some 200 bytes each.
                stub.GetAppendStatus(asked, timeout=20)
            process.terminate()
            assert process.wait(30) == 0
    finally:
        process.kill()
        out, err = process.communicate()
    assert (out, err.count("call") > 100) == ("", True)


def test_metrics_count_real_calls(tmp_path: Path) -> None:
    """Before and after: calls by method and code, latencies, events, syncs, sizes, streams, torn ends, lost runs."""
    log = tmp_path / "percentile_experiments.jsonl"
    log.write_bytes(b'{"torn')
    words = ["serve", "--port", "0", "--log_dir", str(tmp_path), "--metrics_port", "0", "--lease_s", "1"]
    with serving("collector.entry", *words) as (process, endpoint), grpc.insecure_channel(endpoint) as connection:
        url = second_line(process)
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", url)
        stub = collector_pb2_grpc.CollectorServiceStub(connection)
        before = scraped(url)
        append, get = "method=CollectorService.AppendExperiment", "method=CollectorService.GetExperiment"
        assert before[f"qlog_rpc_started_total,{append}"] == 0
        watch = stub.WatchExperiments(wire.WatchExperimentsRequest(), timeout=60)
        lost = [pb.DroppedEvents(kind="layer_stats", count=3), pb.DroppedEvents(kind="made up " + HOSTILE, count=2)]
        events = [*whole()[:-1], finish(dropped=lost)]
        list(stub.AppendExperiment(requests(new_id(), events), timeout=30))
        list(stub.AppendExperiment(requests(new_id(), whole()[:-1]), timeout=30))  # Its sender is gone: LOST.
        assert code_of(lambda: stub.GetExperiment(wire.GetExperimentRequest(ref="0"), timeout=30)) == "OK"
        assert code_of(lambda: stub.GetExperiment(wire.GetExperimentRequest(ref="77"), timeout=30)) == "NOT_FOUND"
        after = until(lambda: (found := scraped(url))["qlog_store_lost_experiments_total"] == 1 and found)
        watch.cancel()
        assert before[f"qlog_store_set_aside_total,file={log.name}"] == 1
        size = f"qlog_store_size_bytes,file={log.name}"
        assert after[size] == log.stat().st_size > before[size] == 0
        assert after["qlog_store_experiments"] == 2
        assert after[f"qlog_rpc_handled_total,code=OK,{append}"] == 2
        assert (
            after[f"qlog_rpc_handled_total,code=OK,{get}"] == after[f"qlog_rpc_handled_total,code=NOT_FOUND,{get}"] == 1
        )
        assert after[f"qlog_rpc_duration_seconds_count,{get}"] == 2
        assert after["qlog_rpc_events_received_total"] == 2 * len(events) - 1
        assert after["qlog_rpc_in_flight,method=CollectorService.WatchExperiments"] == after["qlog_streams"] == 1
        assert after["qlog_store_sync_seconds_count,file=percentile_experiments.jsonl"] >= 2
        assert after["qlog_store_commit_events_sum"] == 2 * len(events) - 1
        assert after["qlog_store_commit_batches_count"] >= 2
        assert after["qlog_store_dropped_events_total,kind=layer_stats"] == 3
        assert after["qlog_store_dropped_events_total,kind=other"] == 2
        assert after["qlog_store_queue_batches"] == after["qlog_store_running_experiments"] == 0
        until(lambda: scraped(url)["qlog_streams"] == 0)


def test_metrics_elsewhere_take_tls_and_a_readers_token(files: Secured) -> None:
    """On another address than loopback metrics are as hard to read as records; on loopback they are open."""
    where = Listening(tls_cert=files.cert, tls_key=files.key, token_file=files.tokens)
    trusted = ssl.create_default_context(cafile=files.ca)
    series = "qlog_rpc_started_total,method=CollectorService.GetExperiment"
    with metered("0.0.0.0", where) as url:
        assert url.startswith("https://")
        assert scraped(url, context=trusted, token=TOKENS["reader"])[series] == 0
        for token in ("", "wrong", TOKENS["writer"]):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                scraped(url, context=trusted, token=token)
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            scraped(url.replace("https", "http"), token=TOKENS["reader"])
        # A new certificate counts at the next connection.
        renewed = secured(files.directory)
        assert scraped(url, context=ssl.create_default_context(cafile=renewed.ca), token=TOKENS["reader"])[series] == 0
        secret(Path(files.key), "no key\n")
        assert scraped(url, context=ssl.create_default_context(cafile=renewed.ca), token=TOKENS["reader"])[series] == 0
    with metered("127.0.0.1", where) as url:
        assert scraped(url)[series] == 0
        with pytest.raises(urllib.error.HTTPError, match="404"):
            scraped(url.replace("metrics", "other"))


@contextmanager
def metered(host: str, where: Listening) -> Iterator[str]:
    """Metrics of a server that listens so, and where they are read from here."""
    metering = Metering("collector", ROLES)
    metering.serve(host, 0, where, access_of(where))
    try:
        yield metering.url.replace("0.0.0.0", "127.0.0.1")
    finally:
        metering.stop()


def test_scrapers_that_hang_do_not_hold_up_others() -> None:
    """Those who connect and say nothing are bounded in number; once they are gone, metrics are read again."""
    with metered("127.0.0.1", Listening()) as url:
        port = int(url.split(":")[2].partition("/")[0])
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(6)]
        assert scraped(url)
        silent += [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        for connection in silent:
            connection.close()
        until(lambda: readable(url))


def readable(url: str) -> bool:
    try:
        return bool(scraped(url))
    except OSError:
        return False


@pytest.mark.parametrize("program", ["collector", "quantizer"])
def test_metrics_are_not_open_to_others_by_mistake(program: str, tmp_path: Path, capsys: Any) -> None:
    """The same refusal as for calls: one line, exit 2; so says `config`."""
    from collector.entry import main as collector
    from quantizer.entry import run_command as quantizer

    main = {"collector": collector, "quantizer": quantizer}[program]
    for verb in ("serve", "config"):
        given = [verb, "--log_dir", str(tmp_path / "x"), "--metrics_port", "0", "--metrics_host", "0.0.0.0"]
        assert main(given) == 2
        assert re.fullmatch(rf"{program}: [^\n]*--metrics_host[^\n]*--insecure[^\n]*\n", capsys.readouterr().err)
    assert not (tmp_path / "x").exists()


def test_a_port_of_metrics_that_is_taken_is_said(tmp_path: Path, capsys: Any) -> None:
    """One line, exit 1, and the store is free again."""
    from collector.entry import main

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        words = ["serve", "--port", "0", "--log_dir", str(tmp_path), "--metrics_port", str(taken.getsockname()[1])]
        assert main(words) == 1
    assert re.fullmatch(
        r"collector: cannot listen on [^\n]* for metrics: [^\n]*--metrics_port\n", capsys.readouterr().err
    )
    with opened(tmp_path):
        pass
