"""Against MLflow's tracking server with SQLite: ingest, searches, the list from the shell; both sides in one run.

The same experiment on both: 12 parameters and 122 values. MLflow gets it call by call, as its users log what they
measure; in one `log_batch` a run; and so from 8 clients at once. The collector gets it from one client and from 8, each
waiting until its experiment is on disk. Judged is one client against one that logs value by value; the rest is printed.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from qlog.v1 import collector_pb2
from qlog.v1 import common_pb2 as pb

from tests.bench.mlflow_server import NotInstallableError, bare_environment, installed, tracking_server
from tests.bench.stores import write_log
from tests.bench.test_collector_speed import full_stats, names
from tests.bench.test_queries import FILTER, LAST
from tests.client.conftest import PROGRAM, environment
from tests.collector.builders import connected, new_id, requests

pytestmark = [pytest.mark.bench, pytest.mark.mlflow, pytest.mark.timeout(1500)]

# Seconds for MLflow's runs; and our experiments, which take less.
_MLFLOW_S, _EXPERIMENTS, _CLIENTS, _LINES = 30.0, 400, 8, 10_000
_TENSORS = 6
_INGEST, _SEARCH, _SHELL = 100, 10, 10


def experiment_events(place: int = 0) -> list[pb.Event]:
    """An experiment of 12 parameters and 122 values: six tensors of 20 numbers each, accuracy and perplexity."""
    config = pb.ExperimentConfig(
        model="mamba-370m",
        w_bits=4 + place % 2 * 4,
        a_bits=8,
        percentile_alpha=0.9995,
        group_heads=False,
        apply_gptq=True,
        quantize_embedding=False,
        quantize_lm_head=False,
        calib_data_num=512,
        calib_seqlen=512,
    )
    for name, number in (("seed", 1234), ("batch_size", 16)):
        config.other.add(name=name).value.int_value = number
    results = pb.Results(accuracy=0.4 + place % 7 / 20, perplexity=9.621)
    begin = pb.Begin(timestamp="2026-11-05 15:30:00", command="quantizer run mamba-370m --quantize", config=config)
    return [
        pb.Event(begin=begin),
        *(pb.Event(layer_stats=full_stats(name)) for name in names()[:_TENSORS]),
        pb.Event(evaluation_result=pb.EvaluationResult(results=results)),
        pb.Event(finish=pb.Finish(status=pb.EXPERIMENT_STATUS_COMPLETED, duration_s=1.5)),
    ]


def mlflow_values() -> dict[str, dict[str, Any]]:
    """The same experiment as MLflow has it."""
    events = experiment_events()
    config = events[0].begin.config
    params = {field.name: value for field, value in config.ListFields() if field.name != "other"}
    params |= {name: getattr(config, name) for name in ("group_heads", "quantize_embedding", "quantize_lm_head")}
    params |= {field.name: field.value.int_value for field in config.other}
    metrics: dict[str, float] = {"accuracy": 0.5205, "perplexity": 9.621}
    for event in events:
        if event.HasField("layer_stats"):
            metrics |= dict(_numbers(event.layer_stats))
    return {"params": params, "metrics": metrics}


def _numbers(stats: pb.LayerStats) -> Iterator[tuple[str, float]]:
    name = stats.name.replace(":", "/")
    for field, value in stats.ListFields():
        if isinstance(value, pb.ValueRange):
            yield from ((f"{name}/{field.name}.{end}", getattr(value, end)) for end in ("min", "max", "range"))
        elif not isinstance(value, str):
            yield f"{name}/{field.name}", value


@contextmanager
def collector(log_dir: Path) -> Iterator[str]:
    """`collector serve` as a process of its own; its endpoint."""
    arguments = [sys.executable, "-m", "collector.entry", "serve", "--port", "0", "--log_dir", str(log_dir)]
    with (
        log_dir.with_suffix(".log").open("wb") as said,
        subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=said, text=True, env=environment()) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "listening on " in line
        try:
            yield line.partition("listening on ")[2].partition(",")[0]
        finally:
            process.terminate()


def ingested(endpoint: str, clients: int) -> float:
    """Seconds an experiment, each on a stream of its own until its last event is on disk."""
    streams = [list(requests(new_id(), experiment_events(place))) for place in range(_EXPERIMENTS // 8 * clients)]

    def send(mine: Sequence[Any]) -> None:
        with connected(endpoint) as (stub, _):
            for stream in mine:
                answers = list(stub.AppendExperiment(iter(stream), timeout=60))
                assert answers[-1].HasField("number")

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(send, (streams[place::clients] for place in range(clients))))
    return (time.perf_counter() - start) / len(streams)


def median_s(run: Callable[[], object], rounds: int = 100) -> float:
    """The median time of a call."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def shell_s(command: Sequence[str], env: dict[str, str], rounds: int = 5) -> float:
    """The median time of a command, after a first one that fills caches."""
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env, check=True)
    return median_s(
        lambda: subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env, check=True),
        rounds,
    )


def test_against_mlflow(tmp_path: Path) -> None:
    """Ingest at least 100 times, searches and the list from the shell at least 10 times faster."""
    values = mlflow_values()
    assert (len(values["params"]), len(values["metrics"])) == (12, 122)
    (tmp_path / "values.json").write_text(json.dumps(values))
    try:
        binaries = installed()
    except NotInstallableError as error:
        pytest.skip(str(error))
    side = [str(binaries / "python"), str(Path(__file__).parent / "mlflow_side.py")]
    with tracking_server(binaries, tmp_path) as uri:
        measured = subprocess.run(
            [*side, uri, str(tmp_path / "values.json"), str(_MLFLOW_S)],
            env=bare_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert measured.returncode == 0, measured.stderr[-2000:]
        theirs: dict[str, Any] = json.loads(measured.stdout.splitlines()[-1])
        command = [str(binaries / "mlflow"), "runs", "list", "--experiment-id", str(theirs.pop("experiment_id"))]
        theirs["runs list"] = shell_s(command, {**bare_environment(), "MLFLOW_TRACKING_URI": uri}, rounds=2)
    ours: dict[str, float] = {}
    with collector(tmp_path / "ingest") as endpoint:
        ingested(endpoint, 1)
        ours["one client"], ours[f"{_CLIENTS} clients"] = (ingested(endpoint, clients) for clients in (1, _CLIENTS))
    write_log(tmp_path / "store", _LINES, _TENSORS)
    with collector(tmp_path / "store") as endpoint, connected(endpoint) as (stub, _):
        ask = collector_pb2.ListExperimentsRequest
        assert len(stub.ListExperiments(ask(filter=FILTER, **LAST)).experiments) == 5
        ours["list, last 5"] = median_s(lambda: stub.ListExperiments(ask(**LAST)))
        ours["list, typed filter"] = median_s(lambda: stub.ListExperiments(ask(filter=FILTER, **LAST)))
        ours["qlog list"] = shell_s([*PROGRAM, "list", "--last", "5", "--collector", endpoint], environment())
    ours["qlog list, local"] = shell_s(
        [*PROGRAM, "list", "--last", "5", "--log_dir", str(tmp_path / "store")], environment()
    )
    runs = theirs.pop("runs")
    for what, numbers in ((f"MLflow, {runs} runs", theirs), (f"ours, {_LINES} experiments in lists", ours)):
        print(f"\n{what}: " + ", ".join(f"{name} {seconds * 1e3:,.2f} ms" for name, seconds in numbers.items()))
    ratios = {
        "ingest": theirs["call by call"] / ours["one client"],
        "ingest against log_batch": theirs["log_batch"] / ours["one client"],
        "ingest, 8 clients each, against log_batch": theirs["log_batch, 8 clients"] / ours["8 clients"],
        "last 5": theirs["search, last 5"] / ours["list, last 5"],
        "typed filter": theirs["search, typed filter"] / ours["list, typed filter"],
        "from the shell": theirs["runs list"] / ours["qlog list"],
        "from the shell, local store": theirs["runs list"] / ours["qlog list, local"],
    }
    print("\n".join(f"{name}: {ratio:.1f} times faster" for name, ratio in ratios.items()))
    assert ratios["ingest"] >= _INGEST
    assert min(ratios["last 5"], ratios["typed filter"]) >= _SEARCH
    assert min(ratios["from the shell"], ratios["from the shell, local store"]) >= _SHELL
