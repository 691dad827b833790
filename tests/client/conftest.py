import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from click.testing import CliRunner

from client.entry import main
from tests.client import builders
from tests.client.fakes import FakeCollector, FakeQuantizer

PROGRAM = (sys.executable, "-m", "client.entry")


@dataclass(frozen=True)
class Ran:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


def environment() -> dict[str, str]:
    """The environment without what speaks to `qlog`."""
    return {name: value for name, value in os.environ.items() if not name.startswith("QLOG_")}


def started(*arguments: str) -> "subprocess.Popen[str]":
    """`qlog` in a process of its own."""
    streams = subprocess.PIPE
    return subprocess.Popen([*PROGRAM, *arguments], stdout=streams, stderr=streams, text=True, env=environment())


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("QLOG_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def qlog() -> Callable[..., Ran]:
    """Runs `qlog` as its console script does, its streams replaced."""

    def run(*arguments: str) -> Ran:
        with CliRunner().isolation() as (out, err, _):
            code = main(arguments)
            return Ran(code, out.getvalue().decode(), err.getvalue().decode())

    return run


@pytest.fixture
def collector() -> Iterator[FakeCollector]:
    experiments = [
        builders.experiment(0),
        builders.legacy(1),
        builders.corrupt(2),
        builders.experiment(3, status=3, results=None, error="boom"),
        builders.experiment(4, config=builders.config(percentile_alpha=1.0, model="模型-2m")),
    ]
    with FakeCollector(experiments) as server:
        yield server


@pytest.fixture
def quantizer() -> Iterator[FakeQuantizer]:
    with FakeQuantizer() as server:
        yield server


@contextlib.contextmanager
def restarted(before: FakeCollector) -> Iterator[FakeCollector]:
    """Another collector on the same port with the same experiments."""
    with FakeCollector(before.experiments, before.port) as server:
        server.running, server.ends = before.running, before.ends
        yield server
