"""The whole path on small models: two servers, three experiments, a list and a comparison (`make demo`).

Everything listens on loopback and is stopped at the end; the store is kept for a look around.
"""

import contextlib
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

REPOSITORY = Path(__file__).resolve().parents[1]
PROGRAMS = Path(sys.executable).parent
READY = re.compile(r"listening on (\S+:\d+)")
START_SECONDS = 60
STOP_SECONDS = 20

COMMON = [
    *("--quantize", "--w_bits", "8", "--a_bits", "8", "--batch_size", "16"),
    *("--eval_zero_shot", "--task_list", "gutenberg_cloze", "--eval_ppl", "--ppl_dataset", "gutenberg"),
]
EXPERIMENTS = [
    ["mamba-2m", *COMMON],
    ["mamba-2m", *COMMON, "--percentile_alpha", "1.0"],
    ["mamba2-4m", *COMMON],
]


@contextlib.contextmanager
def server(name: str, log: Path, *arguments: str) -> Iterator[str]:
    """Run a server until the block ends; gives its HOST:PORT."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [PROGRAMS / name, "serve", "--port", "0", *arguments], stdout=output, stderr=subprocess.STDOUT, text=True
        )
    try:
        yield wait_until_ready(name, process, log)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(name: str, process: subprocess.Popen[str], log: Path) -> str:
    """The endpoint that the server printed."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if ready := READY.search(log.read_text()):
            return ready[1]
        time.sleep(0.05)
    sys.exit(f"demo: {name} did not start:\n{log.read_text()}")


def run(*command: str, stdout: IO[str] | None = None) -> None:
    """Show a command and what it prints."""
    print(f"\n$ {shlex.join(command)}", flush=True)
    process = subprocess.run([PROGRAMS / command[0], *command[1:]], check=False, stdout=stdout)
    if process.returncode != 0:
        sys.exit(f"demo: {command[0]} ended with exit code {process.returncode}")


def main() -> None:
    """Three experiments from submission to comparison."""
    began = time.monotonic()
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
