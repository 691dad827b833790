"""How soon `qlog list` is there, from the shell: against the imports that no client of this kind can do without."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bench.stores import write_log
from tests.bench.test_queries import FILTER
from tests.client.conftest import PROGRAM, environment
from tests.collector.builders import serving

pytestmark = pytest.mark.bench

_ROUNDS, _MOST, _LINES, _TENSORS = 11, 2.5, 10_000, 6


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 10,000 lines with its index, as every store has it that was looked at before."""
    path = tmp_path_factory.mktemp("store")
    write_log(path, _LINES, _TENSORS)
    with serving(path):
        pass
    return path


@pytest.mark.parametrize("query", [(), ("--filter", FILTER)], ids=["last 20", "typed filter"])
@pytest.mark.parametrize("place", ["server", "local store"])
def test_a_list_from_the_shell(tmp_path: Path, log_dir: Path, place: str, query: tuple[str, ...]) -> None:
    """At most 2.5 times `python -c "import grpc, click"`: medians of interleaved rounds, each in a new process."""
    if place == "server":
        with serving(log_dir) as client:
            ratio = _measured(["--collector", client.server.endpoint, *query], tmp_path, f"{place} {query}")
    else:
        ratio = _measured(["--log_dir", str(log_dir), *query], tmp_path, f"{place} {query}")
    assert ratio <= _MOST


def _measured(arguments: list[str], byte_code: Path, what: str) -> float:
    commands = {
        "imports": [sys.executable, "-c", "import grpc, click"],
        "list": [*PROGRAM, "list", *arguments],
    }
    # Compiled once, as pip and `make setup` leave the programs, whatever this process was told of byte code.
    variables = {**environment(), "PYTHONPYCACHEPREFIX": str(byte_code)}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(_ROUNDS + 1):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, env=variables, check=True)
            seconds[name].append(time.perf_counter() - start)
    imports, listed = (statistics.median(seconds[name][1:]) for name in commands)
    print(f"\nqlog list ({what}): {listed * 1e3:.0f} ms, imports {imports * 1e3:.0f} ms, {listed / imports:.2f} times")
    return listed / imports
