"""mamba-ssm in float16, what the fused kernels are measured against."""

import torch

from quamba.models.published import VOCAB_SIZE, published_config
from tests.bench.gpu_timing import median_ms


def baseline_model(shape: str) -> torch.nn.Module:
    from mamba_ssm.models.config_mamba import MambaConfig
    from mamba_ssm.models.mixer_seq_simple import MambaLMHeadModel

    config = published_config(shape)
    layer = "Mamba1" if config.family == "mamba1" else "Mamba2"
    found = MambaConfig(
        d_model=config.d_model,
        n_layer=config.n_layer,
        vocab_size=VOCAB_SIZE,
        ssm_cfg={"layer": layer},
        pad_vocab_size_multiple=8 if layer == "Mamba1" else 16,
    )
    return MambaLMHeadModel(found, device="cuda", dtype=torch.float16).eval()


@torch.no_grad()
def decode_ms(model: torch.nn.Module, batch: int) -> float:
    """Its own step from its own CUDA graph."""
    from mamba_ssm.utils.generation import InferenceParams, capture_graph

    params = InferenceParams(max_seqlen=1024, max_batch_size=batch)
    params.key_value_memory_dict = model.allocate_inference_cache(batch, 1024, dtype=torch.float16)
    params.lengths_per_sample = torch.full((batch,), 1, dtype=torch.int32, device="cuda")
    params.seqlen_offset = 1
    step = capture_graph(model, params, batch, 1024, decoding_seqlen=1, mempool=torch.cuda.graphs.graph_pool_handle())
    ids = torch.full((batch, 1), 5, dtype=torch.long, device="cuda")
    positions = torch.ones_like(ids)
    return median_ms(lambda: step(ids, positions, 1))


@torch.no_grad()
def prefill_ms(model: torch.nn.Module, batch: int, length: int) -> float:
    """A prompt without a graph, as it has none; logits of the last position."""
    from mamba_ssm.utils.generation import InferenceParams

    ids = torch.randint(0, 50000, (batch, length), device="cuda")

    def run() -> None:
        params = InferenceParams(max_seqlen=length + 1, max_batch_size=batch)
        model(ids, inference_params=params, num_last_tokens=1)

    return median_ms(run, 30)


__all__ = ["baseline_model", "decode_ms", "prefill_ms"]
