"""Whole experiments on a model that takes no time, and what is compared of their records."""

import json
from collections.abc import Sequence
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
