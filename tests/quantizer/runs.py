"""Whole experiments on a model that takes no time, and what is compared of their records."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quantizer.entry import run_command
from tests.quamba.checkpoints import small_config, write_checkpoint

# Longer than a window of perplexity: a shorter text is warned of.
TEXT = "It was a bright cold day in April, and the clocks were striking thirteen. " * 100


def write_inputs(directory: Path) -> tuple[Path, list[str]]:
    """A tiny model and a text; the words of a command line that quantizes the one and measures it on the other."""
    model = write_checkpoint(directory / "model", small_config("mamba1"))
    (directory / "text.txt").write_text(TEXT, encoding="utf-8")
    options = [
        "--quantize",
        "--calib_data_num",
        "4",
        "--calib_seqlen",
        "32",
        "--batch_size",
        "4",
        "--stats_layers",
        "all",
    ]
    return model, ["run", str(model), *options, "--eval_ppl", "--ppl_dataset", str(directory / "text.txt")]


def run(words: Sequence[str], log_dir: Path, *more: str) -> int:
    """Run a command line in this process; its exit code."""
    return run_command([*words, "--log_dir", str(log_dir), *more])


def records(log_dir: Path) -> list[dict[str, Any]]:
    """The lines of a store."""
    path = log_dir / "percentile_experiments.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def numbers(record: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on how an experiment was recorded."""
    return {key: record[key] for key in ("config", "activation_stats", "results", "model", "calibration", "status")}


def started(*words: str, **environment: str) -> "subprocess.Popen[str]":
    """A program of this project in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"} | environment,
    )


@contextmanager
def serving(*words: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A server in a process of its own, and its address once it listens."""
    process = started(*words)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        errors: list[str] = []
        reader = threading.Thread(target=lambda: errors.extend(process.stderr or ()), daemon=True)
        reader.start()  # Nothing that it says may fill the pipe and stop it.
        line = process.stdout.readline()
        assert "listening on " in line, (line, errors)
        yield process, line.partition("listening on ")[2].split()[0].rstrip(",;")
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join(5)
        process.stdout.close()
        process.stderr.close()
