"""Times of decoded tokens and of prompts on a GPU: quantized models against mamba-ssm in float16 in the same process.

    python -m tests.bench.gpu_speed [--only mamba2-2.7b:w8a8] [--out gpu_results.jsonl]

Weights are random, of the published sizes. Medians by CUDA events. Tokens come from CUDA graphs on both sides; prompts
from one on ours, mamba-ssm has none for them. Each quality is that of logits against the model's own modules in plain
PyTorch. `python -m tests.bench.gpu_report` makes the table of what is kept.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from quamba.decoding.capture import CapturedPrefill
from quamba.decoding.choice import launch_for
from quamba.decoding.graphed import GraphedDecoder
from quamba.decoding.runner import DecodeRunner, Plan
from quamba.flow.batches import batch_documents
from quamba.flow.quantize import quantize
from quamba.flow.recipe import Recipe
from quamba.kernels.launch import Launch
from quamba.models.published import published_config, random_model
from quamba.nn.model import MambaLM
from tests.bench.gpu_baseline import baseline_model, decode_ms, prefill_ms
from tests.bench.gpu_timing import RESULTS, copy_bandwidth, facts, keep, median_ms, sqnr_db

# Model, scheme, batches of decoded tokens, prompts.
CASES: tuple[tuple[str, str, tuple[int, ...], tuple[tuple[int, int], ...]], ...] = (
    ("mamba2-2.7b", "w8a8", (1, 8, 32), ((1, 1024),)),
    ("mamba2-2.7b", "w4a8", (1,), ()),
    ("mamba-2.8b", "w8a8", (1,), ((1, 1024),)),
    ("mamba-130m", "w8a8", (1,), ((1, 1024),)),
    ("mamba2-130m", "w8a8", (1,), ((1, 1024),)),
)


def quantized_model(shape: str, scheme: str) -> MambaLM:
    model = random_model(published_config(shape), torch.device("cuda"))
    documents = [torch.randint(0, 50000, (64,)).tolist() for _ in range(2)]
    recipe = Recipe(w_bits=int(scheme[1]), a_bits=int(scheme[3:]), quantize_embedding=True, quantize_lm_head=True)
    list(quantize(model, recipe, batch_documents(documents, 2)))
    torch.cuda.empty_cache()
    return model


def weight_bytes(model: MambaLM) -> int:
    """Of every weight but the embedding."""
    skipped = ("embedding",), ("state_scale",)
    kept = (b for n, b in model.state_dict().items() if not n.startswith(skipped[0]) and not n.endswith(skipped[1]))
    return sum(buffer.numel() * buffer.element_size() for buffer in kept)


def decode_quality_db(model: MambaLM, decoder: GraphedDecoder, batch: int) -> float:
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


def our_steps(model: MambaLM, batches: tuple[int, ...], bandwidth: float) -> dict[str, dict[str, Any]]:
    """Time, quality and share of the bandwidth for each batch; what moves is each weight once and the states twice."""
    plan, how, c = Plan.of(model), launch_for(model.device), model.config
    results = {}
    for batch in batches:
        ms = step_ms(plan, batch, how)
        moved = weight_bytes(model) + 2 * batch * c.n_layer * c.d_inner * c.d_state
        results[f"batch {batch}"] = {
            "ours_ms": round(ms, 4),
            "sqnr_db": round(min(decode_quality_db(model, GraphedDecoder(plan, how), batch), 200.0), 1),
            "bandwidth_share": round(moved / (ms / 1e3) / bandwidth, 3),
        }
    return results


@torch.no_grad()
def our_prompt(model: MambaLM, batch: int, length: int, bandwidth: float) -> dict[str, Any]:
    """By the fused kernels, from a graph and without."""
    ids = torch.randint(0, 50000, (batch, length), device="cuda")
    run = CapturedPrefill(model, batch, length)
    expected = model.head(model.own_hidden_states(ids)[:, -1])
    quality = sqnr_db(run(ids)[0], expected)
    plain = median_ms(lambda: model.prefill(ids, None, model.new_cache(batch)), 10)
    ms = median_ms(lambda: run(ids), 30)
    return {
        "ours_ms": round(ms, 4),
        "without_graph_ms": round(plain, 4),
        "sqnr_db": round(min(quality, 200.0), 1),
        "bandwidth_share": round(weight_bytes(model) / (ms / 1e3) / bandwidth, 3),
    }


def measure(
    shape: str, scheme: str, batches: tuple[int, ...], prompts: tuple[tuple[int, int], ...], bandwidth: float
) -> list[dict[str, Any]]:
    start = time.monotonic()
    model = quantized_model(shape, scheme)
    print(shape, scheme, "quantized in", round(time.monotonic() - start, 1), "s", flush=True)
    steps = our_steps(model, batches, bandwidth)
    print(json.dumps(steps), flush=True)
    read = {size: our_prompt(model, *size, bandwidth) for size in prompts}
    print(json.dumps(list(read.values())), flush=True)
    del model
    torch.cuda.empty_cache()
    theirs = baseline_model(shape)
    results = []
    for batch, (name, ours) in zip(batches, steps.items(), strict=True):
        results.append(_compared(f"decode {shape} {scheme.upper()} {name}", ours, decode_ms(theirs, batch)))
    for size, ours in read.items():
        case = f"prefill {shape} {scheme.upper()} {size[0]} x {size[1]}"
        results.append(_compared(case, ours, prefill_ms(theirs, *size)))
    del theirs
    torch.cuda.empty_cache()
    print(round(time.monotonic() - start, 1), "s", flush=True)
    return results


def _compared(case: str, ours: dict[str, Any], baseline: float) -> dict[str, Any]:
    values = {"baseline_ms": round(baseline, 4), "ratio": round(baseline / ours["ours_ms"], 3)}
    result = {"case": case, **ours, **values}
    print(json.dumps(result), flush=True)
    return result


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="models and schemes, as mamba2-2.7b:w8a8,mamba-130m:w8a8")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    bandwidth = copy_bandwidth()
    common = facts(bandwidth)
    print(common, flush=True)
    for shape, scheme, batches, prompts in CASES:
        if not options.only or f"{shape}:{scheme}" in options.only.split(","):
            keep(options.out, measure(shape, scheme, batches, prompts, bandwidth), common)


if __name__ == "__main__":
    main()
