"""Time of a decoded token on a GPU: the fused kernels against mamba-ssm in float16, both from CUDA graphs.

    python -m tests.bench.gpu_decode [--shapes mamba2-130m,mamba2-2.7b] [--batches 1,8] [--out gpu_results.jsonl]

Weights are random, of the published sizes. Medians by CUDA events; each quality is that of the logits against the
model's own steps in plain PyTorch.
"""

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from quamba.decoding.graphed import GraphedDecoder
from quamba.decoding.runner import DecodeRunner, Plan
from quamba.flow.batches import batch_documents
from quamba.flow.quantize import quantize
from quamba.flow.recipe import Recipe
from quamba.kernels.launch import Launch
from quamba.models.build import build_model
from quamba.models.config import parse_config
from quamba.nn.model import MambaLM

SIZES = {
    "mamba2-130m": (768, 24),
    "mamba2-370m": (1024, 48),
    "mamba2-780m": (1536, 48),
    "mamba2-1.3b": (2048, 48),
    "mamba2-2.7b": (2560, 64),
}
REPEATS = 50


def random_model(shape: str) -> MambaLM:
    d_model, n_layer = SIZES[shape]
    values = {
        "d_model": d_model,
        "n_layer": n_layer,
        "vocab_size": 50277,
        "ssm_cfg": {"layer": "Mamba2"},
        "rms_norm": True,
        "pad_vocab_size_multiple": 16,
    }
    config = parse_config(values, Path("config.json"))
    torch.manual_seed(0)

    def normal(*sizes: int, std: float) -> torch.Tensor:
        return torch.randn(*sizes, device="cuda") * std

    E, H, C, D = config.d_inner, config.nheads, config.conv_dim, d_model
    tensors = {
        "backbone.embedding.weight": normal(50288, D, std=0.02),
        "backbone.norm_f.weight": normal(D, std=0.1) + 1,
    }
    for i in range(n_layer):
        m = f"backbone.layers.{i}.mixer."
        tensors |= {
            f"backbone.layers.{i}.norm.weight": normal(D, std=0.1) + 1,
            f"{m}in_proj.weight": normal(E + C + H, D, std=D**-0.5),
            f"{m}conv1d.weight": normal(C, 1, 4, std=0.3),
            f"{m}conv1d.bias": normal(C, std=0.1),
            f"{m}dt_bias": normal(H, std=1.0) - 4,
            f"{m}A_log": torch.log(torch.linspace(1, 16, H, device="cuda")),
            f"{m}D": normal(H, std=0.1) + 1,
            f"{m}norm.weight": normal(E, std=0.1) + 1,
            f"{m}out_proj.weight": normal(D, E, std=E**-0.5),
        }
    return build_model(config, tensors, shape)


def median_ms(run: Callable[[], Any], repeats: int = REPEATS) -> float:
    for _ in range(5):
        run()
    events = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        events.append((begin, end))
    torch.cuda.synchronize()
    return statistics.median(begin.elapsed_time(end) for begin, end in events)


def copy_bandwidth() -> float:
    """Bytes a second, read and written, of a copy of 2 GB."""
    source = torch.randint(0, 255, (1 << 31,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * len(source) / (median_ms(lambda: target.copy_(source), 30) / 1e3)


def baseline_ms(shape: str, batch: int) -> float:
    """mamba-ssm's own step from its own CUDA graph, float16."""
    from mamba_ssm.models.config_mamba import MambaConfig
    from mamba_ssm.models.mixer_seq_simple import MambaLMHeadModel
    from mamba_ssm.utils.generation import InferenceParams, capture_graph

    d_model, n_layer = SIZES[shape]
    config = MambaConfig(
        d_model=d_model, n_layer=n_layer, vocab_size=50277, ssm_cfg={"layer": "Mamba2"}, pad_vocab_size_multiple=16
    )
    model = MambaLMHeadModel(config, device="cuda", dtype=torch.float16).eval()
    params = InferenceParams(max_seqlen=1024, max_batch_size=batch)
    params.key_value_memory_dict = model.allocate_inference_cache(batch, 1024, dtype=torch.float16)
    params.lengths_per_sample = torch.full((batch,), 1, dtype=torch.int32, device="cuda")
    params.seqlen_offset = 1
    step = capture_graph(model, params, batch, 1024, decoding_seqlen=1, mempool=torch.cuda.graphs.graph_pool_handle())
    ids = torch.full((batch, 1), 5, dtype=torch.long, device="cuda")
    positions = torch.ones_like(ids)
    return median_ms(lambda: step(ids, positions, 1))


def moved_bytes(model: MambaLM, batch: int) -> int:
    """What a step reads and writes at least: every weight but the embedding once, the states twice."""
    weights = sum(b.numel() * b.element_size() for name, b in model.named_buffers() if not name.startswith("embedding"))
    c = model.config
    return weights + 2 * batch * c.n_layer * c.nheads * c.headdim * c.d_state


def sqnr_db(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(10 * torch.log10(expected.double().square().sum() / (found - expected).double().square().sum()))


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


def cases(shape: str, batches: list[int], bandwidth: float, how: Launch) -> list[dict[str, Any]]:
    start = time.monotonic()
    model = random_model(shape)
    documents = [torch.randint(0, 50000, (64,)).tolist() for _ in range(2)]
    list(quantize(model, Recipe(quantize_embedding=True, quantize_lm_head=True), batch_documents(documents, 2)))
    torch.cuda.empty_cache()
    print(shape, "quantized in", round(time.monotonic() - start, 1), "s", flush=True)
    results = []
    for batch in batches:
        plan = Plan.of(model)
        decoder = GraphedDecoder(plan, how)
        quality = quality_db(model, decoder, batch)
        ids = torch.full((batch,), 5, device="cuda")
        ours = {}
        for name, options in {
            "pdl": how,
            "plain": Launch(pdl=False),
        }.items():
            runner = DecodeRunner(plan, batch, options, graph=True)
            ours[name] = median_ms(lambda runner=runner, ids=ids: runner.step(ids))
        theirs = baseline_ms(shape, batch)
        best = ours["pdl"] if how.pdl else ours["plain"]
        results.append(
            {
                "case": f"decode {shape} W8A8 batch {batch}",
                "ours_ms": round(best, 4),
                "without_overlap_ms": round(ours["plain"], 4),
                "baseline_ms": round(theirs, 4),
                "ratio": round(theirs / best, 3),
                "sqnr_db": round(quality, 1),
                "bandwidth_share": round(moved_bytes(model, batch) / (best / 1e3) / bandwidth, 3),
            }
        )
        print(json.dumps(results[-1]), flush=True)
        torch.cuda.empty_cache()
    return results


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", default="mamba2-130m,mamba2-2.7b")
    parser.add_argument("--batches", default="1")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "gpu_results.jsonl")
    options = parser.parse_args()
    bandwidth = copy_bandwidth()
    how = Launch(pdl=torch.cuda.get_device_capability() >= (9, 0))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    import triton

    facts = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "copy_tb_s": round(bandwidth / 1e12, 2),
        "commit": commit.stdout.strip(),
    }
    print(facts, flush=True)
    with options.out.open("a", encoding="utf-8") as out:
        for shape in options.shapes.split(","):
            for case in cases(shape, [int(b) for b in options.batches.split(",")], bandwidth, how):
                out.write(json.dumps(case | facts) + "\n")
                out.flush()


if __name__ == "__main__":
    main()
