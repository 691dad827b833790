"""What watching activations costs on a GPU: a sweep against the plain forward pass, and one for eight alphas.

    python -m tests.bench.gpu_calibration [--shape mamba-370m] [--documents 64] [--out gpu_results.jsonl]

Weights are random; documents have 512 random tokens.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from quamba.flow.batches import TokenBatch, batch_documents
from quamba.flow.calibrate import Calibration
from quamba.flow.recipe import AUTO_ALPHAS, Recipe
from quamba.models.published import published_config, random_model
from quamba.nn.model import MambaLM
from quamba.transforms.rotation import rotate_model
from tests.bench.gpu_timing import RESULTS, copy_bandwidth, facts, keep

_BATCH = 8


def seconds_plain(model: MambaLM, batches: list[TokenBatch]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    for batch in batches:
        model.hidden_states(batch.input_ids.to(model.device))
    torch.cuda.synchronize()
    return time.perf_counter() - start


def seconds_watched(model: MambaLM, batches: list[TokenBatch], alphas: tuple[float, ...]) -> float:
    recipes = [Recipe(percentile_alpha=alpha) for alpha in alphas]
    torch.cuda.synchronize()
    start = time.perf_counter()
    calibration = Calibration(model, recipes, batches, ())
    for _ in calibration.run():
        pass
    torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="mamba-370m")
    parser.add_argument("--documents", type=int, default=64)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    common = facts(copy_bandwidth())
    model = random_model(published_config(options.shape), torch.device("cuda"))
    rotate_model(model)
    documents = [torch.randint(0, 50000, (512,)).tolist() for _ in range(options.documents)]
    batches = batch_documents(documents, _BATCH)
    alphas = (*AUTO_ALPHAS, 0.995, 0.99)
    times = {}
    for _ in range(2):  # The first compiles and loads.
        times["plain"] = seconds_plain(model, batches)
        times["one"] = seconds_watched(model, batches, (0.9995,))
        times["eight"] = seconds_watched(model, batches, alphas)
    results = [
        {
            "case": f"calibration {options.shape} {options.documents} x 512",
            "ours_ms": round(times["one"] * 1e3, 1),
            "baseline_ms": round(times["plain"] * 1e3, 1),
            "ratio": round(times["plain"] / times["one"], 3),
            "sqnr_db": None,
            "bandwidth_share": None,
        },
        {
            "case": f"calibration {options.shape} {options.documents} x 512, eight alphas against one",
            "ours_ms": round(times["eight"] * 1e3, 1),
            "baseline_ms": round(times["one"] * 1e3, 1),
            "ratio": round(times["one"] / times["eight"], 3),
            "sqnr_db": None,
            "bandwidth_share": None,
        },
    ]
    for result in results:
        print(json.dumps(result), flush=True)
    keep(options.out, results, common)


if __name__ == "__main__":
    main()
