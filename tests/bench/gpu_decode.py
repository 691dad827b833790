"""Time of a decoded token on a GPU: the fused kernels against mamba-ssm in float16, both from CUDA graphs.

    python -m tests.bench.gpu_decode [--cases mamba2-2.7b:w8a8:1,mamba2-2.7b:w8a8:32] [--out gpu_results.jsonl]

Weights are random, of the published sizes. Medians by CUDA events; each quality is that of the logits against the
model's own steps in plain PyTorch. `python -m tests.bench.gpu_report` makes the table of the results.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from quamba.decoding.choice import launch_for
from quamba.decoding.graphed import GraphedDecoder
from quamba.decoding.runner import DecodeRunner, Plan
from quamba.flow.batches import batch_documents
from quamba.flow.quantize import quantize
from quamba.flow.recipe import Recipe
from quamba.kernels.launch import Launch
from quamba.models.published import published_config, random_model
from quamba.nn.model import MambaLM
from tests.bench.gpu_baseline import baseline_model, decode_ms
from tests.bench.gpu_timing import RESULTS, copy_bandwidth, facts, keep, median_ms, sqnr_db

CASES = (
    "mamba-130m:w8a8:1,mamba2-130m:w8a8:1,mamba2-2.7b:w8a8:1,mamba2-2.7b:w8a8:8,mamba2-2.7b:w8a8:32,"
    "mamba2-2.7b:w4a8:1,mamba-2.8b:w8a8:1"
)


def quantized_model(shape: str, scheme: str) -> MambaLM:
    model = random_model(published_config(shape), torch.device("cuda"))
    documents = [torch.randint(0, 50000, (64,)).tolist() for _ in range(2)]
    recipe = Recipe(w_bits=int(scheme[1]), a_bits=int(scheme[3:]), quantize_embedding=True, quantize_lm_head=True)
    list(quantize(model, recipe, batch_documents(documents, 2)))
    torch.cuda.empty_cache()
    return model


def moved_bytes(model: MambaLM, batch: int) -> int:
    """What a step reads and writes at least: every weight but the embedding once, the states twice."""
    kept = (
        buffer
        for name, buffer in model.state_dict().items()
        if not name.startswith("embedding") and not name.endswith("state_scale")
    )
    c = model.config
    state = c.d_inner * c.d_state
    return sum(buffer.numel() * buffer.element_size() for buffer in kept) + 2 * batch * c.n_layer * state


def quality_db(model: MambaLM, decoder: GraphedDecoder, batch: int) -> float:
    prompt = torch.randint(0, 50000, (batch, 32), device="cuda")
    cache, own = decoder.new_cache(batch), model.new_cache(batch)
    decoder.prefill(prompt, None, cache)
    model.prefill(prompt, None, own)
    found, expected = [], []
    for token in range(4):
        ids = torch.full((batch,), 17 + token, device="cuda")
        found.append(decoder.step(ids, cache))
        expected.append(model.step(ids, own))
    return sqnr_db(torch.stack(found), torch.stack(expected))


def step_ms(plan: Plan, batch: int, how: Launch) -> float:
    runner = DecodeRunner(plan, batch, how, graph=True)
    ids = torch.full((batch,), 5, device="cuda")
    return median_ms(lambda: runner.step(ids))


def measure(shape: str, scheme: str, batches: list[int], bandwidth: float) -> list[dict[str, Any]]:
    start = time.monotonic()
    model = quantized_model(shape, scheme)
    print(shape, scheme, "quantized in", round(time.monotonic() - start, 1), "s", flush=True)
    plan, how = Plan.of(model), launch_for(model.device)
    ours = []
    for batch in batches:
        quality = quality_db(model, GraphedDecoder(plan, how), batch)
        ours.append((batch, step_ms(plan, batch, how), quality, moved_bytes(model, batch)))
    del model, plan
    torch.cuda.empty_cache()
    theirs = baseline_model(shape)
    results = []
    for batch, ms, quality, moved in ours:
        baseline = decode_ms(theirs, batch)
        results.append(
            {
                "case": f"decode {shape} {scheme.upper()} batch {batch}",
                "ours_ms": round(ms, 4),
                "baseline_ms": round(baseline, 4),
                "ratio": round(baseline / ms, 3),
                "sqnr_db": round(quality, 1),
                "bandwidth_share": round(moved / (ms / 1e3) / bandwidth, 3),
            }
        )
        print(json.dumps(results[-1]), flush=True)
    del theirs
    torch.cuda.empty_cache()
    return results


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", default=CASES)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    bandwidth = copy_bandwidth()
    common = facts(bandwidth)
    print(common, flush=True)
    wanted: dict[tuple[str, str], list[int]] = {}
    for case in options.cases.split(","):
        shape, scheme, batch = case.split(":")
        wanted.setdefault((shape, scheme), []).append(int(batch))
    for (shape, scheme), batches in wanted.items():
        keep(options.out, measure(shape, scheme, batches, bandwidth), common)


if __name__ == "__main__":
    main()
