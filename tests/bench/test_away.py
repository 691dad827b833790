"""What a collector that is away costs an experiment: against one that is there, whole runs, both sides in one run.

A run's own length varies with the machine by more than what is measured here. So what its record costs is timed inside
the run: opening the recorder, every call that records an event, and all from the last event to the end of the process.
"""

import re
import signal
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.processes import running, serving
from tests.quantizer.runs import TEXT

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1200)]

_ROUNDS, _MOST_S = 3, 2.0
_MODEL = Path(__file__).parents[2] / "models" / "mamba-2m"
_WORDS = [
    *("run", str(_MODEL), "--quantize", "--calib_data_num", "8", "--calib_seqlen", "128", "--batch_size", "8"),
    *("--eval_ppl", "--ppl_dataset"),
]

# A run that tells what its record cost until its last event, and when that was.
_PROGRAM = """
import sys, time
from quantizer import recorder
from quantizer.events import Finished
spent = 0.0

def timed(name, kind):
    method = getattr(kind, name)
    def call(*args, **options):
        global spent
        if isinstance(args[-1], Finished):
            print(f"recorded in {spent} until {time.time()}", file=sys.stderr, flush=True)
        start = time.perf_counter()
        method(*args, **options)
        spent += time.perf_counter() - start
    setattr(kind, name, call)

timed("__init__", recorder.Recorder)
timed("record", recorder.Recording)
from quantizer.entry import main
main(sys.argv[1:])
"""

Disturb = Callable[[], None]


class Measured(NamedTuple):
    """One run: seconds that its record cost, and what it told of ranges and perplexity."""

    cost_s: float
    told: tuple[str, ...]
    recorded: bool


@contextmanager
def present(store: Path) -> Iterator[tuple[str, Disturb]]:
    """A collector, all the time."""
    with serving("collector.entry", "serve", "--port", "0", "--log_dir", str(store)) as (_, address):
        yield address, lambda: None


@contextmanager
def refused(_store: Path) -> Iterator[tuple[str, Disturb]]:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    yield f"127.0.0.1:{port}", lambda: None


@contextmanager
def silent(_store: Path) -> Iterator[tuple[str, Disturb]]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}", lambda: None


@contextmanager
def swallowing(_store: Path) -> Iterator[tuple[str, Disturb]]:
    """A port whose packets are swallowed: its queue of connections is full, the kernel drops what comes."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as fillers:
        for _ in range(8):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}", lambda: None


@contextmanager
def unresolvable(_store: Path) -> Iterator[tuple[str, Disturb]]:
    """A host that nobody knows."""
    yield "collector.invalid:50551", lambda: None


@contextmanager
def killed(store: Path) -> Iterator[tuple[str, Disturb]]:
    """A collector that is killed in the middle."""
    with serving("collector.entry", "serve", "--port", "0", "--log_dir", str(store)) as (process, address):
        yield address, lambda: process.send_signal(signal.SIGKILL)


@contextmanager
def frozen(store: Path) -> Iterator[tuple[str, Disturb]]:
    """A collector that stands still from the middle on: its connection stays, and nothing comes over it."""
    with serving("collector.entry", "serve", "--port", "0", "--log_dir", str(store)) as (process, address):
        yield address, lambda: process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGCONT)


_AWAY = (refused, silent, swallowing, unresolvable, killed, frozen)


def _measured(directory: Path, text: Path, address: str, disturb: Disturb) -> Measured:
    words = [*_WORDS, str(text), "--log_dir", str(directory), "--collector", address]
    with running("-c", _PROGRAM, *words) as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if line.startswith("quantize"):
                disturb()
                break
        out, rest = process.communicate(timeout=120)
        ended = time.time()
    said += rest
    assert process.returncode == 0, said
    recorded = "Recorded         number" in out
    assert said.count("warning") == (not recorded), said
    cost = re.search(r"^recorded in (\S+) until (\S+)$", said, re.MULTILINE)
    assert cost, said
    told = re.findall(r"^(?:Perplexity|layer_).*", out, re.MULTILINE)
    assert len(told) > 2, out
    return Measured(float(cost[1]) + ended - float(cost[2]), tuple(told), recorded)


def test_a_run_without_its_collector_ends_hardly_later(tmp_path: Path) -> None:
    """At most 2 s later than with it, in each way of being away, and with the same numbers."""
    text = tmp_path / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    found: dict[str, list[Measured]] = {place.__name__: [] for place in (present, *_AWAY)}
    for number in range(_ROUNDS):
        for place in (present, *_AWAY):
            directory = tmp_path / f"{place.__name__}-{number}"
            with place(directory / "store") as (address, disturb):
                found[place.__name__].append(_measured(directory / "here", text, address, disturb))
    base = statistics.median(run.cost_s for run in found["present"])
    later = {name: statistics.median(run.cost_s for run in runs) - base for name, runs in found.items()}
    print(f"\nwith a collector: {base:.2f} s for the record; later without:")
    for name, runs in found.items():
        print(f"  {name:<13} {later[name]:+.2f} s  ({', '.join(f'{run.cost_s - base:+.2f}' for run in runs)})")
    assert all(run.recorded == (name == "present") for name, runs in found.items() for run in runs)
    assert len({run.told for runs in found.values() for run in runs}) == 1
    assert max(later.values()) <= _MOST_S
