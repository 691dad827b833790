"""What watching activations costs on a GPU: a sweep against the plain forward pass, and one for eight alphas.

    python -m tests.bench.gpu_calibration [--shape mamba-370m] [--documents 512] [--repeats 1] [--out gpu_results.jsonl]

Weights are random; documents have 512 random tokens. The plain pass is `MambaLM.hidden_states` of the batches that the
sweep makes of the given ones. No side replays a graph. The sides take turns; medians. What fell back on slower ways is
said: by warnings, and in the first line.
"""

import argparse
import json
import logging
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from quamba.flow.batches import TokenBatch, batch_documents, merge_batches
from quamba.flow.calibrate import Calibration
from quamba.flow.recipe import AUTO_ALPHAS, Recipe
from quamba.kernels.ops import own_kernel
from quamba.models.published import published_config, random_model
from quamba.nn.model import MambaLM
from quamba.observers.watching import tokens_at_once
from quamba.transforms.rotation import rotate_model
from tests.bench.gpu_timing import RESULTS, copy_bandwidth, facts, keep

_BATCH = 8
ALPHAS = (*AUTO_ALPHAS, 0.995, 0.99)


def run_plain(model: MambaLM, batches: list[TokenBatch]) -> None:
    for batch in batches:
        model.hidden_states(batch.input_ids.to(model.device))


def run_watched(model: MambaLM, batches: list[TokenBatch], alphas: tuple[float, ...]) -> Calibration:
    calibration = Calibration(model, [Recipe(percentile_alpha=alpha) for alpha in alphas], batches, ())
    for _ in calibration.run():
        pass
    return calibration


def seconds(run: Callable[[], object]) -> float:
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
    logging.basicConfig(level=logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="mamba-370m")
    parser.add_argument("--documents", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    common = facts(copy_bandwidth())
    model = random_model(published_config(options.shape), torch.device("cuda"))
    rotate_model(model)
    documents = [torch.randint(0, 50000, (512,)).tolist() for _ in range(options.documents)]
    given = batch_documents(documents, _BATCH)
    merged = merge_batches(given, tokens_at_once(model.config, model.device))
    # Compiles and loads.
    run_plain(model, merged[:1])
    watched = [run_watched(model, merged[:1], alphas) for alphas in ((0.9995,), ALPHAS)]
    own_scan = model.config.family == "mamba2" or own_kernel("triton_float_scan", "cuda") is not None
    anew = sum(calibration.watched_anew for calibration in watched)
    print(json.dumps({"own_scan": own_scan, "watched_anew": anew, "batches": len(merged)}), flush=True)
    sides: dict[str, Callable[[], object]] = {
        "plain": lambda: run_plain(model, merged),
        "one": lambda: run_watched(model, given, (0.9995,)),
        "eight": lambda: run_watched(model, given, ALPHAS),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.repeats):
        for name, side in sides.items():
            times[name].append(seconds(side))
            print(json.dumps({name: round(times[name][-1] * 1e3, 1)}), flush=True)
    median = {name: statistics.median(values) for name, values in times.items()}
    case = f"calibration {options.shape} {options.documents} x 512"
    results = [
        result(case, median["one"], median["plain"]),
        result(f"{case}, eight alphas against one", median["eight"], median["one"]),
    ]
    for line in results:
        print(json.dumps(line), flush=True)
    keep(options.out, results, common)


if __name__ == "__main__":
    main()
