"""How soon `qlog list` is there, from the shell: against the imports that no client of this kind can do without."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.client.conftest import PROGRAM, environment
from tests.collector.builders import serving

pytestmark = pytest.mark.bench

_ROUNDS, _MOST = 15, 2.5


@pytest.mark.parametrize("place", ["server", "local store"])
def test_a_list_from_the_shell(tmp_path: Path, place: str) -> None:
    """At most 2.5 times `python -c "import grpc, click"`: medians of interleaved rounds, each in a new process."""
    with serving(tmp_path) as client:
        for _ in range(5):
            client.record()
        if place == "server":
            ratio = _measured(["--collector", client.server.endpoint], place)
    if place == "local store":
        ratio = _measured(["--log_dir", str(tmp_path)], place)
    assert ratio <= _MOST


def _measured(where: list[str], place: str) -> float:
    commands = {
        "imports": [sys.executable, "-c", "import grpc, click"],
        "list": [*PROGRAM, "list", *where],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(_ROUNDS):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, env=environment(), check=True)
            seconds[name].append(time.perf_counter() - start)
    imports, listed = (statistics.median(seconds[name]) for name in commands)
    print(f"\nqlog list ({place}): {listed * 1e3:.0f} ms, imports {imports * 1e3:.0f} ms, {listed / imports:.2f} times")
    return listed / imports
