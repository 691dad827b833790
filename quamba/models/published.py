"""Models of the published sizes with random weights: for measurements that depend on sizes alone."""

from pathlib import Path

import torch
from torch import Tensor

from quamba.errors import ModelError
from quamba.models.build import build_model
from quamba.models.config import ModelConfig, parse_config
from quamba.nn.model import MambaLM

# d_model and n_layer.
_DEPTHS = {
    "mamba-130m": (768, 24),
    "mamba-370m": (1024, 48),
    "mamba-790m": (1536, 48),
    "mamba-1.4b": (2048, 48),
    "mamba-2.8b": (2560, 64),
    "mamba2-130m": (768, 24),
    "mamba2-370m": (1024, 48),
    "mamba2-780m": (1536, 48),
    "mamba2-1.3b": (2048, 48),
    "mamba2-2.7b": (2560, 64),
}
SHAPES = tuple(_DEPTHS)
VOCAB_SIZE = 50277


def published_config(shape: str) -> ModelConfig:
    """The structure of a published size.

    Raises:
        ModelError: there is no such one.
    """
    if shape not in _DEPTHS:
        raise ModelError(f"no published shape {shape!r}; there are {', '.join(SHAPES)}")
    d_model, n_layer = _DEPTHS[shape]
    mamba2 = shape.startswith("mamba2")
    values = {
        "d_model": d_model,
        "n_layer": n_layer,
        "vocab_size": VOCAB_SIZE,
        "ssm_cfg": {"layer": "Mamba2"} if mamba2 else {},
        "rms_norm": True,
        "pad_vocab_size_multiple": 16 if mamba2 else 8,
    }
    return parse_config(values, Path(shape))


def random_model(config: ModelConfig, device: torch.device, *, seed: int = 0) -> MambaLM:
    """Weights of plausible sizes, so that activations neither vanish nor grow.

    Args:
        config: the structure.
        device: where they are drawn, and stay.
        seed: the same one draws the same weights on the same kind of device.
    """
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*sizes: int, std: float, mean: float = 0.0) -> Tensor:
        # In half precision, as published weights are.
        return (torch.randn(*sizes, device=device, generator=generator) * std + mean).half().float()

    D, E, N, K = config.d_model, config.d_inner, config.d_state, config.d_conv
    C = config.conv_dim
    rows = -(-config.vocab_size // 16) * 16
    tensors = {
        "backbone.embedding.weight": normal(rows, D, std=0.02),
        "backbone.norm_f.weight": normal(D, std=0.1, mean=1),
    }
    for layer in range(config.n_layer):
        m = f"backbone.layers.{layer}.mixer."
        tensors |= {
            f"backbone.layers.{layer}.norm.weight": normal(D, std=0.1, mean=1),
            f"{m}conv1d.weight": normal(C, 1, K, std=0.3),
            f"{m}conv1d.bias": normal(C, std=0.1),
            f"{m}out_proj.weight": normal(D, E, std=E**-0.5),
        }
        if config.family == "mamba1":
            R = config.dt_rank
            tensors |= {
                f"{m}in_proj.weight": normal(2 * E, D, std=D**-0.5),
                f"{m}x_proj.weight": normal(R + 2 * N, E, std=E**-0.5),
                f"{m}dt_proj.weight": normal(E, R, std=R**-0.5),
                f"{m}dt_proj.bias": normal(E, std=1.0, mean=-4),
                f"{m}A_log": torch.log(torch.arange(1, N + 1, device=device).float()).repeat(E, 1),
                f"{m}D": normal(E, std=0.1, mean=1),
            }
            continue
        H = config.nheads
        tensors |= {
            f"{m}in_proj.weight": normal(E + C + H, D, std=D**-0.5),
            f"{m}dt_bias": normal(H, std=1.0, mean=-4),
            f"{m}A_log": torch.log(torch.linspace(1, 16, H, device=device)),
            f"{m}D": normal(H, std=0.1, mean=1),
            f"{m}norm.weight": normal(E, std=0.1, mean=1),
        }
    return build_model(config, tensors, "a random model")


__all__ = ["SHAPES", "VOCAB_SIZE", "published_config", "random_model"]
