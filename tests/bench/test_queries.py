"""How fast lists are, and what the index costs: ratios of two sides measured in one run."""

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from qlog.v1 import collector_pb2 as wire

from collector.fold import CODEC
from collector.names import INDEX_NAME, LOG_NAME
from collector.store import open_store
from tests.bench.stores import parse_all, write_log
from tests.collector.builders import connected, serving

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1200)]

FILTER = "config.w_bits = 4 AND results.accuracy > 0.5"
LAST = {"order_by": "number desc", "page_size": 5}
_ROUNDS = 300


def echo_server() -> tuple[grpc.Server, int]:
    """A service that gives back what it gets."""
    method = grpc.unary_unary_rpc_method_handler(lambda request, _context: request)
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bench.Echo", {"Echo": method})])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def median_us(*calls: Callable[[], Any]) -> list[float]:
    """The median time of each of several calls, taken in turns."""
    times: list[list[float]] = [[] for _ in calls]
    for round_ in range(_ROUNDS + 20):
        for place, call in enumerate(calls):
            start = time.perf_counter()
            call()
            if round_ >= 20:
                times[place].append(time.perf_counter() - start)
    return [statistics.median(taken) * 1e6 for taken in times]


def served(log_dir: Path) -> dict[str, float]:
    """Microseconds of a bare call, the last five, and the last five that match."""
    server, port = echo_server()
    with serving(log_dir) as client, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        echo = channel.unary_unary("/bench.Echo/Echo")
        start = time.perf_counter()
        client.list(filter=FILTER, **LAST)
        first = (time.perf_counter() - start) * 1e6
        bare, last, typed = median_us(
            lambda: echo(b"hello"), lambda: client.list(**LAST), lambda: client.list(filter=FILTER, **LAST)
        )
    server.stop(None)
    return {"bare": bare, "last": last, "typed": typed, "typed, first time": first}


def opened(log_dir: Path) -> float:
    """Seconds that opening takes."""
    start = time.perf_counter()
    open_store(log_dir, CODEC).close()
    return time.perf_counter() - start


def rebuilt(log_dir: Path) -> float:
    """How many times as long as parsing with orjson it takes to make the index anew: the median of three, in turns."""
    log, ratios = log_dir / LOG_NAME, []
    for _ in range(3):
        start = time.perf_counter()
        lines = parse_all(log)
        parsed = time.perf_counter() - start
        (log_dir / INDEX_NAME).unlink(missing_ok=True)
        built = opened(log_dir)
        ratios.append(built / parsed)
        size = (log_dir / INDEX_NAME).stat().st_size / 1e6
        print(
            f"\n{lines} lines, {log.stat().st_size / 1e6:.0f} MB: orjson {parsed:.2f} s, index of {size:.0f} MB "
            f"in {built:.2f} s, {built / parsed:.2f} times"
        )
    return statistics.median(ratios)


def resident_mb(log_dir: Path) -> float:
    """Resident memory of a collector's own process at its peak, after it has answered lists, in megabytes."""
    arguments = [sys.executable, "-m", "collector.entry", "serve", "--port", "0", "--log_dir", str(log_dir)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        endpoint = re.search(r"[\d.]+:\d+", line)
        assert endpoint is not None, line
        with connected(endpoint[0]) as (stub, _channel):
            for text in ("", FILTER, "mamba2-2.7b", "config.option_4 = 4", 'anyLayer("*", "sqnr_db") > 1'):
                for order in ("number desc", "results.accuracy desc"):
                    stub.ListExperiments(
                        wire.ListExperimentsRequest(filter=text, order_by=order, page_size=100), timeout=120
                    )
        status = Path(f"/proc/{process.pid}/status").read_text()
        process.terminate()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1024


def report(what: str, values: dict[str, float]) -> None:
    print(
        f"\n{what}: "
        + ", ".join(f"{name} {value:,.0f} us ({value / values['bare']:.2f})" for name, value in values.items())
    )


def test_lists_and_index(tmp_path: Path) -> None:
    """10,000 lines of 96 tensors, 300,000 of 2, and 1,000 for the start."""
    small, large, thousand = tmp_path / "small", tmp_path / "large", tmp_path / "thousand"
    write_log(small, 10_000, 96)
    write_log(large, 300_000, 2)
    write_log(thousand, 1000, 2)
    built = [rebuilt(small), rebuilt(large)]
    opened(thousand)
    few, many = served(small), served(large)
    report("10,000", few)
    report("300,000", many)
    starts = [statistics.median(opened(log_dir) for _ in range(7)) for log_dir in (thousand, large)]
    print(f"\nstart: {starts[0] * 1e3:.1f} ms at 1,000, {starts[1] * 1e3:.1f} ms at 300,000")
    memory = resident_mb(large)
    (large / INDEX_NAME).unlink()
    anew = resident_mb(large)
    print(f"\nmemory at 300,000: {memory:.0f} MB, {anew:.0f} MB where the index was made anew")
    assert few["last"] <= 3 * few["bare"]
    assert few["typed"] <= 3 * few["bare"]
    assert many["last"] / many["bare"] <= 2 * few["last"] / few["bare"]
    assert many["typed"] / many["bare"] <= 2 * few["typed"] / few["bare"]
    assert starts[1] <= 1.5 * starts[0]
    assert max(memory, anew) < 300
    assert max(built) <= 3
