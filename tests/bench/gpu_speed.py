"""Times of decoded tokens and of prompts on a GPU: quantized models against mamba-ssm in float16 in the same process.

    python -m tests.bench.gpu_speed [--only mamba2-2.7b:w8a8] [--batches 1,32] [--all] [--out gpu_results.jsonl]

Weights are random, of the published sizes; of those between the largest and the smallest, with --all, prompts alone.
Medians by CUDA events. Tokens come from CUDA graphs on both sides; prompts from one on ours, mamba-ssm has none for
them. Each quality is that of logits against the model's own modules in plain PyTorch. Shares are of what a copy moves
and of what cuBLAS computes in 8-bit integers, both measured here. Sizes of weights are counted, as saved. Our side runs
without the kernels of mamba-ssm and causal-conv1d, which take a minute to tune themselves. Each result is kept at once.
`python -m tests.bench.gpu_report` makes the table of what is kept.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from quamba.decoding.capture import CapturedPrefill, CapturedStep
from quamba.decoding.choice import launch_for
from quamba.decoding.graphed import GraphedDecoder
from quamba.decoding.plan import NotFusedError
from quamba.decoding.runner import DecodeRunner, Plan
from quamba.flow.batches import batch_documents
from quamba.flow.quantize import quantize
from quamba.flow.recipe import Recipe
from quamba.kernels import ops
from quamba.models.published import published_config, random_model
from quamba.models.saving import size_bytes
from quamba.nn.model import MambaLM
from tests.bench.gpu_baseline import baseline_model, decode_ms, prefill_ms
from tests.bench.gpu_timing import RESULTS, copy_bandwidth, facts, int8_rate, keep, median_ms, sqnr_db
from tests.bench.gpu_weights import code_bytes, compared_sizes, product_operations, weight_bytes


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured of a quantized model.

    Attributes:
        shape: a published size.
        scheme: as "w8a8".
        batches: of decoded tokens.
        prompts: batch and length.
        by_default: without --all too.
    """

    shape: str
    scheme: str
    batches: tuple[int, ...] = ()
    prompts: tuple[tuple[int, int], ...] = ()
    by_default: bool = True


CASES = (
    Case("mamba2-2.7b", "w8a8", (1, 8, 32, 128, 256), ((1, 1024), (8, 2048))),
    Case("mamba2-2.7b", "w4a8", (1,)),
    Case("mamba2-2.7b", "w4a16", (1,)),
    Case("mamba-2.8b", "w8a8", (1,), ((1, 1024),)),
    Case("mamba-2.8b", "w4a8", (1,)),
    Case("mamba-2.8b", "w4a16", (1,)),
    Case("mamba-130m", "w8a8", (1,), ((1, 1024),)),
    Case("mamba2-130m", "w8a8", (1,), ((1, 1024),)),
    *(
        Case(shape, "w8a8", (), ((1, 1024),), by_default=False)
        for shape in ("mamba-370m", "mamba2-370m", "mamba-790m", "mamba2-780m", "mamba-1.4b", "mamba2-1.3b")
    ),
)


@dataclass(frozen=True, slots=True)
class Rates:
    """Bytes a second of a copy, 8-bit operations a second of a product."""

    bandwidth: float
    arithmetic: float


def quantized_model(shape: str, scheme: str) -> MambaLM:
    model = random_model(published_config(shape), torch.device("cuda"))
    documents = [torch.randint(0, 50000, (64,)).tolist() for _ in range(2)]
    recipe = Recipe(w_bits=int(scheme[1]), a_bits=int(scheme[3:]), quantize_embedding=True, quantize_lm_head=True)
    list(quantize(model, recipe, batch_documents(documents, 2)))
    torch.cuda.empty_cache()
    return model


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


@torch.no_grad()
def stepper(model: MambaLM, batch: int) -> tuple[Callable[[torch.Tensor], Any], float]:
    """What decodes a token, from a graph, and its quality: the fused kernels where they run the model, else its own."""
    how = launch_for(model.device)
    try:
        plan = Plan.of(model)
    except NotFusedError as error:
        print("decoded without fused kernels:", error, flush=True)
        cache = model.new_cache(batch)
        model.prefill(torch.randint(0, 50000, (batch, 32), device="cuda"), None, cache)
        return CapturedStep(model, cache, batch).step, 200.0
    quality = decode_quality_db(model, GraphedDecoder(plan, how), batch)
    return DecodeRunner(plan, batch, how, graph=True).step, min(quality, 200.0)


def our_steps(model: MambaLM, batches: tuple[int, ...], bandwidth: float) -> dict[int, dict[str, Any]]:
    """Time, quality and share of the bandwidth for each batch; what moves is each weight once and the states twice."""
    c = model.config
    state_width = 1 if all(layer.mixer.state_scale is not None for layer in model.layers) else 4
    results = {}
    for batch in batches:
        try:
            step, quality = stepper(model, batch)
        except RuntimeError as error:
            # What else is measured is not lost for it.
            print(f"FAILED at batch {batch}: {str(error)[:300]}", flush=True)
            torch.cuda.empty_cache()
            continue
        ids = torch.full((batch,), 5, device="cuda")
        ms = median_ms(lambda step=step, ids=ids: step(ids))  # type: ignore[misc]  # bound here, called here
        moved = weight_bytes(model) + 2 * batch * c.n_layer * c.d_inner * c.d_state * state_width
        results[batch] = {
            "ours_ms": round(ms, 4),
            "sqnr_db": round(quality, 1),
            "bandwidth_share": round(moved / (ms / 1e3) / bandwidth, 3),
        }
        del step
        torch.cuda.empty_cache()
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


def measure(case: Case, rates: Rates) -> Iterator[dict[str, Any]]:
    start = time.monotonic()
    shape, scheme = case.shape, case.scheme.upper()
    model = quantized_model(shape, case.scheme)
    sizes = size_bytes(model), code_bytes(model)
    print(shape, scheme, "quantized in", round(time.monotonic() - start, 1), "s", flush=True)
    steps = our_steps(model, case.batches, rates.bandwidth)
    print(json.dumps(steps), flush=True)
    read = {size: our_prompt(model, *size, rates.bandwidth) for size in case.prompts}
    for size, found in read.items():
        rate = product_operations(model, *size) / (found["ours_ms"] / 1e3)
        found["arithmetic_share"] = round(rate / rates.arithmetic, 3)
    print(json.dumps(list(read.values())), flush=True)
    del model
    torch.cuda.empty_cache()
    theirs = baseline_model(shape)
    yield compared_sizes(f"weights {shape} {scheme}", sizes, theirs)
    for batch, ours in steps.items():
        yield _compared(f"decode {shape} {scheme} batch {batch}", ours, decode_ms(theirs, batch))
    for size, ours in read.items():
        yield _compared(f"prefill {shape} {scheme} {size[0]} x {size[1]}", ours, prefill_ms(theirs, *size))
    del theirs
    torch.cuda.empty_cache()
    print(round(time.monotonic() - start, 1), "s", flush=True)


def _compared(case: str, ours: dict[str, Any], baseline: float) -> dict[str, Any]:
    values = {"baseline_ms": round(baseline, 4), "ratio": round(baseline / ours["ours_ms"], 3)}
    return {"case": case, **ours, **values}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="models and schemes, as mamba2-2.7b:w8a8,mamba-130m:w8a8")
    parser.add_argument("--batches", default="", help="of decoded tokens, of those of a case: as 1,32")
    parser.add_argument("--all", action="store_true", help="the sizes in between too")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    ops.load_functions = dict
    rates = Rates(copy_bandwidth(), int8_rate())
    common = facts(rates.bandwidth, rates.arithmetic)
    print(common, flush=True)
    for case in CASES:
        named = f"{case.shape}:{case.scheme}" in options.only.split(",")
        if named or (not options.only and (case.by_default or options.all)):
            if options.batches:
                chosen = {int(batch) for batch in options.batches.split(",")}
                case = replace(case, batches=tuple(batch for batch in case.batches if batch in chosen))
            for result in measure(case, rates):
                print(json.dumps(result), flush=True)
                keep(options.out, [result], common)


if __name__ == "__main__":
    main()
