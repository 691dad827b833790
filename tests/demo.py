"""The whole path on small models: two servers, three experiments, a list and a comparison (`make demo`).

Everything listens on loopback and is stopped at the end, also where SIGTERM or Ctrl-C is the end (exit code 143 or
130); the store is kept for a look around.
"""

import contextlib
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

REPOSITORY = Path(__file__).resolve().parents[1]
PROGRAMS = Path(sys.executable).parent
READY = re.compile(r"listening on (\S+:\d+)")
START_SECONDS = 60
STOP_SECONDS = 20
ENDS = (signal.SIGTERM, signal.SIGINT)

COMMON = [
    # A quarter of the default's documents and half of the passages: under 3 minutes on 2 cores, slow ones too.
    *("--quantize", "--w_bits", "8", "--a_bits", "8", "--batch_size", "16", "--calib_data_num", "128"),
    *("--eval_zero_shot", "--task_list", "gutenberg_cloze", "--limit", "500"),
    *("--eval_ppl", "--ppl_dataset", "gutenberg"),
]
EXPERIMENTS = [
    ["mamba-2m", *COMMON],
    ["mamba-2m", *COMMON, "--percentile_alpha", "1.0"],
    ["mamba2-4m", *COMMON],
]


def end(number: int, _frame: FrameType | None) -> None:
    """Leave every block on the way out, as at the end."""
    sys.exit(128 + number)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Signals wait for the end of the block: a process that has begun must not be forgotten."""
    came: list[int] = []
    handlers = {number: signal.signal(number, lambda this, _frame: came.append(this)) for number in ENDS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in came[:1]:
            signal.raise_signal(number)


@contextlib.contextmanager
def running(command: list[str | Path], output: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run a program until the block ends."""
    with contextlib.ExitStack() as ending:
        with undisturbed():
            process = subprocess.Popen(command, stdout=output, stderr=output and subprocess.STDOUT, text=True)
            ending.callback(stop, process)
        yield process


def stop(process: subprocess.Popen[str]) -> None:
    """End a process and wait for it, if it still runs."""
    with undisturbed():
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def server(name: str, log: Path, *arguments: str) -> Iterator[str]:
    """Run a server until the block ends; gives its HOST:PORT."""
    command = [PROGRAMS / name, "serve", "--port", "0", *arguments]
    with log.open("w") as output, running(command, output.fileno()) as process:
        yield wait_until_ready(name, process, log)


def wait_until_ready(name: str, process: subprocess.Popen[str], log: Path) -> str:
    """The endpoint that the server printed."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if ready := READY.search(log.read_text()):
            return ready[1]
        time.sleep(0.05)
    sys.exit(f"demo: {name} did not start:\n{log.read_text()}")


def run(*command: str) -> None:
    """Show a command and what it prints."""
    print(f"\n$ {shlex.join(command)}", flush=True)
    with running([PROGRAMS / command[0], *command[1:]]) as process:
        code = process.wait()
    if code != 0:
        sys.exit(f"demo: {command[0]} ended with exit code {code}")


def main() -> None:
    """Three experiments from submission to comparison."""
    began = time.monotonic()
    for number in ENDS:
        signal.signal(number, end)
    folder = Path(tempfile.mkdtemp(prefix="qlog-demo-"))
    logs = folder / "logs"
    logs.mkdir()
    with (
        server("collector", folder / "collector.log", "--log_dir", str(logs)) as collector,
        server(
            "quantizer",
            folder / "quantizer.log",
            *("--collector", collector, "--log_dir", str(folder / "quantizer")),
            *("--model_root", str(REPOSITORY / "models"), "--devices", "cpu"),
        ) as quantizer,
    ):
        for experiment in EXPERIMENTS:
            run("qlog", "submit", *experiment, "--wait", "--quantizer", quantizer, "--collector", collector)
        run("qlog", "list", "--last", "5", "--collector", collector)
        run("qlog", "compare", "0", "1", "--collector", collector)
    print(f"\nDone in {time.monotonic() - began:.0f} s. The experiments stay in {logs}; look closer with, for example:")
    print(f"  {Path('.venv/bin/qlog')} --log_dir {logs} show 2")


if __name__ == "__main__":
    main()
