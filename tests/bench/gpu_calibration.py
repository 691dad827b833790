"""What watching activations costs on a GPU: a sweep against the plain forward pass, and one for eight alphas.

    python -m tests.bench.gpu_calibration [--shape mamba-370m] [--documents 512] [--out gpu_results.jsonl]

Weights are random; documents have 512 random tokens. The plain pass is `MambaLM.hidden_states` of the batches that the
sweep makes of the given ones, and of the given ones of 8 documents; the faster of the two is the baseline. No side
replays a graph. Each side runs several times in turn; medians.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from quamba.flow.batches import TokenBatch, batch_documents, merge_batches
from quamba.flow.calibrate import Calibration
from quamba.flow.recipe import AUTO_ALPHAS, Recipe
from quamba.models.published import published_config, random_model
from quamba.nn.model import MambaLM
from quamba.observers.watching import tokens_at_once
from quamba.transforms.rotation import rotate_model
from tests.bench.gpu_timing import RESULTS, copy_bandwidth, facts, keep

_BATCH, _REPEATS = 8, 3
ALPHAS = (*AUTO_ALPHAS, 0.995, 0.99)


def run_plain(model: MambaLM, batches: list[TokenBatch]) -> None:
    for batch in batches:
        model.hidden_states(batch.input_ids.to(model.device))


def run_watched(model: MambaLM, batches: list[TokenBatch], alphas: tuple[float, ...]) -> None:
    for _ in Calibration(model, [Recipe(percentile_alpha=alpha) for alpha in alphas], batches, ()).run():
        pass


def seconds(run: Callable[[], None]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def result(case: str, ours: float, baseline: float) -> dict[str, object]:
    return {
        "case": case,
        "ours_ms": round(ours * 1e3, 1),
        "baseline_ms": round(baseline * 1e3, 1),
        "ratio": round(baseline / ours, 3),
        "sqnr_db": None,
        "bandwidth_share": None,
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="mamba-370m")
    parser.add_argument("--documents", type=int, default=512)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    common = facts(copy_bandwidth())
    model = random_model(published_config(options.shape), torch.device("cuda"))
    rotate_model(model)
    documents = [torch.randint(0, 50000, (512,)).tolist() for _ in range(options.documents)]
    given = batch_documents(documents, _BATCH)
    merged = merge_batches(given, tokens_at_once(model.config, model.device))
    sides = {
        "plain, batches of 8": lambda: run_plain(model, given),
        "plain, merged": lambda: run_plain(model, merged),
        "one": lambda: run_watched(model, given, (0.9995,)),
        "eight": lambda: run_watched(model, given, ALPHAS),
    }
    for side in sides.values():  # Compiles and loads.
        side()
    times = {name: [seconds(side) for _ in range(_REPEATS)] for name, side in sides.items()}
    median = {name: statistics.median(values) for name, values in times.items()}
    print(json.dumps({name: [round(value * 1e3, 1) for value in values] for name, values in times.items()}), flush=True)
    plain = min(median["plain, batches of 8"], median["plain, merged"])
    case = f"calibration {options.shape} {options.documents} x 512"
    results = [
        result(case, median["one"], plain),
        result(f"{case}, eight alphas against one", median["eight"], median["one"]),
    ]
    for line in results:
        print(json.dumps(line), flush=True)
    keep(options.out, results, common)


if __name__ == "__main__":
    main()
