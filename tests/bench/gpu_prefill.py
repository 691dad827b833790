"""Time of a prompt on a GPU: quantized models from a graph of their shape, against mamba-ssm in float16.

    python -m tests.bench.gpu_prefill [--cases mamba2-2.7b:w8a8:1x1024] [--out gpu_results.jsonl]

Weights are random, of the published sizes. The SQNR is that of the last logits against the model's own prefill without
a graph.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from quamba.decoding.capture import CapturedPrefill
from tests.bench.gpu_baseline import baseline_model, prefill_ms
from tests.bench.gpu_decode import quantized_model
from tests.bench.gpu_timing import RESULTS, copy_bandwidth, facts, keep, median_ms, sqnr_db

CASES = "mamba-130m:w8a8:1x1024,mamba2-130m:w8a8:1x1024,mamba2-2.7b:w8a8:1x1024,mamba-2.8b:w8a8:1x1024"


@torch.no_grad()
def ours_ms(shape: str, scheme: str, batch: int, length: int) -> tuple[float, float, float, int]:
    """From a graph and without, the quality, and bytes of weights."""
    model = quantized_model(shape, scheme)
    ids = torch.randint(0, 50000, (batch, length), device="cuda")
    run = CapturedPrefill(model, batch, length)
    expected = model.prefill(ids, None, model.new_cache(batch))
    quality = sqnr_db(run(ids)[0], expected)
    plain = median_ms(lambda: model.prefill(ids, None, model.new_cache(batch)), 10)
    weights = sum(b.numel() * b.element_size() for n, b in model.state_dict().items() if not n.startswith("embedding"))
    return median_ms(lambda: run(ids), 30), plain, quality, weights


def measure(shape: str, scheme: str, batch: int, length: int, bandwidth: float) -> dict[str, Any]:
    ours, plain, quality, weights = ours_ms(shape, scheme, batch, length)
    torch.cuda.empty_cache()
    theirs = prefill_ms(baseline_model(shape), batch, length)
    torch.cuda.empty_cache()
    return {
        "case": f"prefill {shape} {scheme.upper()} {batch} x {length}",
        "ours_ms": round(ours, 4),
        "without_graph_ms": round(plain, 4),
        "baseline_ms": round(theirs, 4),
        "ratio": round(theirs / ours, 3),
        "sqnr_db": round(min(quality, 200.0), 1),
        "bandwidth_share": round(weights / (ours / 1e3) / bandwidth, 3),
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", default=CASES)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    bandwidth = copy_bandwidth()
    common = facts(bandwidth)
    print(common, flush=True)
    for case in options.cases.split(","):
        shape, scheme, sizes = case.split(":")
        batch, length = (int(size) for size in sizes.split("x"))
        result = measure(shape, scheme, batch, length, bandwidth)
        print(json.dumps(result), flush=True)
        keep(options.out, [result], common)


if __name__ == "__main__":
    main()
