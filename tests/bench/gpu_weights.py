"""What the weights of a quantized model take, and how much is computed with them."""

from typing import Any

from torch import nn

from quamba.nn.embedding import QEmbedding
from quamba.nn.linear import QLinear
from quamba.nn.model import MambaLM


def weight_bytes(model: MambaLM) -> int:
    """Of every weight but the embedding."""
    skipped = ("embedding",), ("state_scale",)
    kept = (b for n, b in model.state_dict().items() if not n.startswith(skipped[0]) and not n.endswith(skipped[1]))
    return sum(buffer.numel() * buffer.element_size() for buffer in kept)


def product_operations(model: MambaLM, batch: int, length: int) -> int:
    """Two for each weight and token, of a prompt whose last tokens alone reach the head."""
    layers = sum(part.shape[0] * part.shape[1] for part in model.layers.modules() if isinstance(part, QLinear))
    head = model.lm_head.shape[0] * model.lm_head.shape[1] if isinstance(model.lm_head, QLinear) else 0
    return 2 * batch * (length * layers + head)


def code_bytes(model: MambaLM) -> float:
    """Of all codes, and of the scales that groups of 4-bit ones need: less cannot hold these weights."""
    total = 0.0
    for part in model.modules():
        if isinstance(part, QLinear):
            total += part.codes.nbytes + (0 if part.group_scale is None else part.group_scale.nbytes)
        elif isinstance(part, QEmbedding):
            total += part.codes.nbytes
    return total


def compared_sizes(case: str, ours: tuple[int, float], theirs: nn.Module) -> dict[str, Any]:
    """A line of results: all tensors as they are saved, and their codes alone, against mamba-ssm's in float16."""
    baseline = sum({p.data_ptr(): p.numel() * p.element_size() for p in theirs.parameters()}.values())
    return {
        "case": case,
        "ours_ms": None,
        "baseline_ms": None,
        "ratio": round(ours[0] / baseline, 4),
        "sqnr_db": None,
        "bandwidth_share": None,
        "ours_bytes": ours[0],
        "baseline_bytes": baseline,
        "least_ratio": round(ours[1] / baseline, 4),
    }


__all__ = ["code_bytes", "compared_sizes", "product_operations", "weight_bytes"]
