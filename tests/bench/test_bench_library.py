"""What the library's speed is measured by: ratios, both sides in one run (`make bench`)."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from quamba.corpora import calibration_documents
from quamba.flow.calibrate import Calibration, TokenBatch, batch_documents
from quamba.flow.recipe import Recipe
from quamba.models.loading import load_model

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]
REPOSITORY = Path(__file__).resolve().parents[2]


def side(name: str, model: str, runs: int) -> dict[str, Any]:
    """One side of the comparison, in its own process."""
    command = [sys.executable, "-m", "tests.bench.cloze", name, f"models/{model}", str(runs)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize(("model", "ratio"), [("mamba-2m", 10), ("mamba2-4m", 20)])
def test_evaluation_against_transformers(model: str, ratio: float) -> None:
    """The first 192 cloze passages at batch 64: so many times faster than transformers' CPU path, in no more memory,
    with the same scores."""
    first = side("ours", model, 3)
    theirs = side("transformers", model, 1)
    second = side("ours", model, 3)
    seconds = statistics.median(first["seconds"] + second["seconds"])
    peak = max(first["peak_bytes"], second["peak_bytes"])
    print(
        f"\n{model}: ours {seconds:.2f} s (median of 6), {peak / 1e6:.0f} MB; "
        f"transformers {theirs['seconds'][0]:.2f} s, "
        f"{theirs['peak_bytes'] / 1e6:.0f} MB; {theirs['seconds'][0] / seconds:.1f} times faster; "
        f"accuracy {first['accuracy']:.4f} / {theirs['accuracy']:.4f}, "
        f"perplexity {first['perplexity']:.2f} / {theirs['perplexity']:.2f}"
    )
    assert first["accuracy"] == pytest.approx(theirs["accuracy"], abs=0.001)
    assert first["perplexity"] == pytest.approx(theirs["perplexity"], rel=0.005)
    assert theirs["seconds"][0] / seconds >= ratio
    assert peak <= theirs["peak_bytes"]


def interleaved(sides: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """The median time of each side, taken in turns so that a busy machine is busy for all."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


@pytest.mark.parametrize("model", ["mamba-2m", "mamba2-4m"])
def test_calibration_against_the_plain_forward_pass(model: str) -> None:
    """Watching every tensor costs at most 0.3 of the forward pass over the same tokens, with either percentile."""
    loaded = load_model(str(REPOSITORY / "models" / model))
    documents = calibration_documents("builtin", 64, None)
    batches = batch_documents(loaded.tokenizer.encode_batch(documents.texts), 16, 512)

    @torch.no_grad()
    def plain() -> None:
        for batch in batches:
            loaded.model.hidden_states(batch.input_ids)

    sides: dict[str, Callable[[], None]] = {"plain": plain}
    for observer in ("ema", "exact"):
        for alpha in (None, 0.9995):
            recipe = Recipe(observer=observer, percentile_alpha=alpha)  # type: ignore[arg-type]
            sides[f"{observer} {alpha or 'default'}"] = calibrating(loaded.model, recipe, batches)
    times = interleaved(sides, 7)
    ratios = {name: taken / times["plain"] for name, taken in times.items()}
    print(f"\n{model}: plain {times['plain']:.2f} s; " + ", ".join(f"{n} {r:.2f}" for n, r in ratios.items()))
    assert max(ratios.values()) <= 1.3


def calibrating(model: Any, recipe: Recipe, batches: list[TokenBatch]) -> Callable[[], None]:
    """A sweep with the default layers in detail."""

    def run() -> None:
        for _ in Calibration(model, [recipe], batches, {0, 1, 2}).run():
            pass

    return run
