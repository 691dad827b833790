"""Small random models on disk, in both families and both layouts, made on the spot."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = REPOSITORY / "models"
TOKENIZER = MODELS / "mamba-2m" / "tokenizer.json"


def small_config(family: str, **changes: Any) -> dict[str, Any]:
    """A config.json in mamba-ssm's layout; `changes` beginning with `ssm_` go into ssm_cfg."""
    ssm: dict[str, Any] = {"layer": "Mamba1", "d_state": 8}
    if family == "mamba2":
        ssm = {"layer": "Mamba2", "d_state": 16, "headdim": 8, "ngroups": 1}
    config: dict[str, Any] = {
        "d_model": 32,
        "n_layer": 2,
        "vocab_size": 4090,
        "ssm_cfg": ssm,
        "rms_norm": True,
        "pad_vocab_size_multiple": 8,
    }
    for key, value in changes.items():
        if key.startswith("ssm_"):
            ssm[key.removeprefix("ssm_")] = value
        else:
            config[key] = value
    return config


def random_state_dict(config: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Weights of plausible sizes for a config of `small_config`."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, std: float = 0.2) -> Tensor:
        return torch.randn(*shape, generator=generator) * std

    ssm = config["ssm_cfg"]
    D, K = config["d_model"], ssm.get("d_conv", 4)
    E, N = D * ssm.get("expand", 2), ssm["d_state"]
    V = -(-config["vocab_size"] // config["pad_vocab_size_multiple"]) * config["pad_vocab_size_multiple"]
    state = {"backbone.embedding.weight": normal(V, D, std=1.0), "backbone.norm_f.weight": 1 + normal(D, std=0.1)}
    for i in range(config["n_layer"]):
        p = f"backbone.layers.{i}."
        m = f"{p}mixer."
        state[f"{p}norm.weight"] = 1 + normal(D, std=0.1)
        state[f"{m}out_proj.weight"] = normal(D, E)
        if ssm["layer"] == "Mamba1":
            R = -(-D // 16)
            state |= {
                f"{m}in_proj.weight": normal(2 * E, D),
                f"{m}conv1d.weight": normal(E, 1, K),
                f"{m}conv1d.bias": normal(E),
                f"{m}x_proj.weight": normal(R + 2 * N, E),
                f"{m}dt_proj.weight": normal(E, R),
                f"{m}dt_proj.bias": normal(E) - 2,
                f"{m}A_log": torch.log(torch.arange(1, N + 1).float()).repeat(E, 1) + normal(E, N, std=0.1),
                f"{m}D": 1 + normal(E, std=0.1),
            }
            continue
        G, P = ssm["ngroups"], ssm["headdim"]
        H, C = E // P, E + 2 * G * N
        state |= {
            f"{m}in_proj.weight": normal(E + C + H, D),
            f"{m}conv1d.weight": normal(C, 1, K),
            f"{m}conv1d.bias": normal(C),
            f"{m}dt_bias": normal(H) - 2,
            f"{m}A_log": torch.log(torch.linspace(1, 16, H)),
            f"{m}D": 1 + normal(E if ssm.get("D_has_hdim") else H, std=0.1),
        }
        if ssm.get("rmsnorm", True):
            state[f"{m}norm.weight"] = 1 + normal(E, std=0.1)
    if config.get("tie_embeddings") is False:
        state["lm_head.weight"] = normal(V, D)
    return state


def write_checkpoint(
    directory: Path, config: dict[str, Any], state: dict[str, Tensor] | None = None, *, pickled: bool = False
) -> Path:
    """A whole model directory: config.json, weights, tokenizer."""
    directory.mkdir(parents=True, exist_ok=True)
    state = random_state_dict(config) if state is None else state
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())
    if pickled:
        torch.save(state, directory / "pytorch_model.bin")
    else:
        save_file(state, directory / "model.safetensors")
    return directory
