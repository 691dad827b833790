"""What is around a call costs: a bare gRPC server of the same handlers, and what is put around them step by step."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from qlog.v1 import collector_pb2 as wire
from qlog.v1 import collector_pb2_grpc
from qlog.v1.logs import start_logging
from qlog.v1.serving.audit import Audit
from qlog.v1.serving.listening import Listening
from qlog.v1.serving.metrics import CallMetrics, new_registry
from qlog.v1.serving.observing import Observer

from collector.auth import ROLES
from collector.gate import Gate
from collector.server import Server
from collector.service import register
from collector.store import Store
from tests.collector.builders import new_id, opened, record
from tests.secured import TOKENS, secret

pytestmark = pytest.mark.bench

_ROUNDS, _CALLS = 30, 100
_METADATA = [("authorization", f"Bearer {TOKENS['admin']}")]


@contextmanager
def bare(store: Store) -> Iterator[str]:
    """The handlers alone."""
    server = grpc.server(futures.ThreadPoolExecutor(32))
    register(store, Gate(16), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


class _Open:
    """A store that outlives its servers."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return (lambda: None) if name == "close" else getattr(self._store, name)


@contextmanager
def around(store: Store, observers: Sequence[Observer] = (), token_file: str | None = None) -> Iterator[str]:
    """The collector's own server."""
    server = Server(_Open(store), Listening(token_file=token_file), reflection=True, observers=observers)  # type: ignore[arg-type]
    server.start()
    try:
        yield server.endpoint
    finally:
        server.stop()


def test_what_is_around_a_call(tmp_path: Path) -> None:
    """The median time of a small call, by turns on each server, and the ratio to that on the bare one."""
    names = [new_id() for _ in range(999)]
    tokens = (
        "".join(f"reader r{place} {name}\n" for place, name in enumerate(names)) + f"admin root {TOKENS['admin']}\n"
    )
    few, many = secret(tmp_path / "few", f"admin root {TOKENS['admin']}\n"), secret(tmp_path / "many", tokens)
    with (
        opened(tmp_path / "store") as store,
        (tmp_path / "log").open("w", encoding="utf-8") as log,
        ExitStack() as stack,
    ):
        record(store)
        start_logging("collector", "json", "info", log)
        metrics = CallMetrics(new_registry("collector", "0"), ROLES)
        servers = {
            "bare gRPC": bare(store),
            "interceptors": around(store),
            "and a token": around(store, token_file=few),
            "one of 1000 tokens": around(store, token_file=many),
            "and metrics": around(store, [metrics], few),
            "and an audit line": around(store, [metrics, Audit(ROLES)], few),
        }
        calls: dict[str, Callable[[], Any]] = {}
        for name, server in servers.items():
            channel = stack.enter_context(grpc.insecure_channel(stack.enter_context(server)))
            stub = collector_pb2_grpc.CollectorServiceStub(channel)
            request = wire.GetAppendStatusRequest(experiment_id=new_id())
            calls[name] = lambda stub=stub, request=request: stub.GetAppendStatus(
                request, timeout=30, metadata=_METADATA
            )
            calls[name]()
        times: dict[str, list[float]] = {name: [] for name in servers}
        for _ in range(_ROUNDS):
            for name, call in calls.items():
                start = time.perf_counter()
                for _ in range(_CALLS):
                    call()
                times[name].append((time.perf_counter() - start) / _CALLS)
    base = statistics.median(times["bare gRPC"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"\n{name:<18} {median * 1e6:7.0f} us a call, {median / base:.2f} times the bare one", end="")
    print()
