"""The sizes of a model, read from `config.json` in mamba-ssm's layout or in Hugging Face's.

Glossary (used by every docstring of this library):
    Bt batch · L tokens · D d_model · E d_inner = expand * D · N d_state · K d_conv · R dt_rank ·
    G ngroups · P headdim · H nheads = E / P · V padded vocabulary · Q chunk size
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from quamba.errors import ModelError

CONFIG_FILE = "config.json"
Family = Literal["mamba1", "mamba2"]

_HF_FAMILIES: Mapping[str, Family] = {"mamba": "mamba1", "mamba2": "mamba2"}
_SSM_FAMILIES: Mapping[str, Family] = {"Mamba1": "mamba1", "Mamba2": "mamba2"}
_MAX_SIZE = 1 << 24


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The structure of one model. Fields are spelled as mamba_ssm spells them.

    `dt_rank` is 0 for Mamba-2; `headdim`, `ngroups` and `chunk_size` are 0 for Mamba-1. `vocab_size` is as the file
    says; the embedding may be padded beyond it.
    """

    family: Family
    d_model: int
    n_layer: int
    vocab_size: int
    d_inner: int
    d_state: int
    d_conv: int
    dt_rank: int = 0
    headdim: int = 0
    ngroups: int = 0
    chunk_size: int = 0
    D_has_hdim: bool = False
    rmsnorm: bool = True
    norm_before_gate: bool = False
    dt_limit: tuple[float, float] = (0.0, math.inf)
    bias: bool = False
    conv_bias: bool = True
    norm_eps: float = 1e-5
    tie_embeddings: bool | None = None
    layout: Literal["mamba_ssm", "huggingface"] = "mamba_ssm"

    @property
    def nheads(self) -> int:
        """H = E / P; 0 for Mamba-1."""
        return self.d_inner // self.headdim if self.headdim else 0

    @property
    def conv_dim(self) -> int:
        """Channels of the convolution: E, or E + 2 G N for Mamba-2."""
        return self.d_inner + 2 * self.ngroups * self.d_state

    def facts(self) -> dict[str, Any]:
        """The sizes as plain values, for a record."""
        values = asdict(self)
        values["dt_limit"] = list(self.dt_limit)
        if self.family == "mamba2":
            values["nheads"] = self.nheads
            del values["dt_rank"]
        else:
            for name in ("headdim", "ngroups", "chunk_size", "D_has_hdim", "rmsnorm", "norm_before_gate", "dt_limit"):
                del values[name]
        return values


class _Reader:
    """Typed access to one JSON object; what is wrong is said with the file's name and the key."""

    def __init__(self, values: Mapping[str, Any], path: Path) -> None:
        self._values = values
        self._path = path

    def fail(self, message: str) -> ModelError:
        return ModelError(f"{self._path}: {message}")

    def size(self, key: str, default: int | None = None) -> int:
        """A whole number above 0."""
        value = self._values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _MAX_SIZE:
            raise self.fail(f"'{key}' must be a whole number above 0, not {value!r}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self._values.get(key, default)
        if not isinstance(value, bool):
            raise self.fail(f"'{key}' must be true or false, not {value!r}")
        return value

    def number(self, key: str, default: float) -> float:
        value = self._values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(f"'{key}' must be a number, not {value!r}")
        return float(value)

    def limits(self, key: str) -> tuple[float, float]:
        value = self._values.get(key, (0.0, math.inf))
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise self.fail(f"'{key}' must be two numbers, not {value!r}")
        try:
            low, high = (_float(limit) for limit in value)
        except (TypeError, ValueError):
            raise self.fail(f"'{key}' must be two numbers, not {value!r}") from None
        return low, high


def _float(value: Any) -> float:
    # transformers writes what JSON has no number for as {"__float__": "Infinity"}.
    return float(value["__float__"] if isinstance(value, dict) and "__float__" in value else value)


def read_config(directory: Path) -> ModelConfig:
    """The configuration in `directory`/config.json.

    Raises:
        ModelError: no such file, no JSON, an unknown family or a structure that is not supported.
    """
    return parse_config(read_values(directory), directory / CONFIG_FILE)


def read_values(directory: Path) -> object:
    """What `directory`/config.json holds.

    Raises:
        ModelError: no such file, or no JSON.
    """
    path = directory / CONFIG_FILE
    try:
        values: object = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{directory}: no config.json there; give a model's directory or a hub id") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise ModelError(f"{path}: no valid JSON ({error}); fetch the model again") from None
    return values


def parse_config(values: object, path: Path) -> ModelConfig:
    """The configuration in a parsed config.json; `path` is for messages.

    Raises:
        ModelError: as `read_config`.
    """
    if not isinstance(values, dict):
        raise ModelError(f"{path}: must hold a JSON object, not a {type(values).__name__}")
    reader = _Reader(values, path)
    if "d_model" in values and "model_type" not in values:
        config = _from_mamba_ssm(values, reader, path)
    else:
        config = _from_huggingface(values, reader)
    if config.family == "mamba2":
        if config.d_inner % config.headdim:
            raise reader.fail(f"d_inner {config.d_inner} is no multiple of the head dimension {config.headdim}")
        if config.nheads % config.ngroups:
            raise reader.fail(f"{config.nheads} heads do not divide into {config.ngroups} groups")
    return config


def _from_mamba_ssm(values: Mapping[str, Any], reader: _Reader, path: Path) -> ModelConfig:
    ssm_values = values.get("ssm_cfg") or {}
    if not isinstance(ssm_values, dict):
        raise reader.fail("'ssm_cfg' must be an object")
    ssm = _Reader(ssm_values, path)
    layer = ssm_values.get("layer", "Mamba1")
    family = _SSM_FAMILIES.get(layer) if isinstance(layer, str) else None
    if family is None:
        raise reader.fail(f"unknown family: ssm_cfg.layer is {layer!r}; supported are {', '.join(_SSM_FAMILIES)}")
    if values.get("attn_layer_idx"):
        raise reader.fail(f"attention layers (attn_layer_idx {values['attn_layer_idx']}) are not supported")
    if values.get("d_intermediate"):
        raise reader.fail(f"MLP layers (d_intermediate {values['d_intermediate']}) are not supported")
    if not reader.flag("rms_norm", True):
        raise reader.fail("LayerNorm models (rms_norm false) are not supported")
    d_model = reader.size("d_model")
    d_inner = d_model * ssm.size("expand", 2)
    common: dict[str, Any] = {
        "family": family,
        "d_model": d_model,
        "n_layer": reader.size("n_layer"),
        "vocab_size": reader.size("vocab_size"),
        "d_inner": d_inner,
        "d_conv": ssm.size("d_conv", 4),
        "bias": ssm.flag("bias", False),
        "conv_bias": ssm.flag("conv_bias", True),
        "tie_embeddings": reader.flag("tie_embeddings", True),
    }
    if family == "mamba1":
        rank = ssm_values.get("dt_rank", "auto")
        dt_rank = math.ceil(d_model / 16) if rank == "auto" else ssm.size("dt_rank")
        return ModelConfig(**common, d_state=ssm.size("d_state", 16), dt_rank=dt_rank)
    if ssm_values.get("d_ssm") not in (None, d_inner):
        raise reader.fail(f"an MLP branch (d_ssm {ssm_values['d_ssm']} below d_inner {d_inner}) is not supported")
    return ModelConfig(
        **common,
        d_state=ssm.size("d_state", 128),
        headdim=ssm.size("headdim", 64),
        ngroups=ssm.size("ngroups", 1),
        chunk_size=ssm.size("chunk_size", 256),
        D_has_hdim=ssm.flag("D_has_hdim", False),
        rmsnorm=ssm.flag("rmsnorm", True),
        norm_before_gate=ssm.flag("norm_before_gate", False),
        dt_limit=ssm.limits("dt_limit"),
    )


def _from_huggingface(values: Mapping[str, Any], reader: _Reader) -> ModelConfig:
    model_type = values.get("model_type")
    family = _HF_FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        found = f"model_type is {model_type!r}" if "model_type" in values else "neither d_model nor model_type is there"
        raise reader.fail(f"unknown family: {found}; supported are Mamba-1 and Mamba-2 (mamba, mamba2)")
    if values.get("hidden_act", "silu") not in ("silu", "swish"):
        raise reader.fail(f"activation {values['hidden_act']!r} is not supported, only silu")
    mamba1 = family == "mamba1"
    d_model = reader.size("hidden_size", 768 if mamba1 else 4096)
    tie = values.get("tie_word_embeddings")
    common: dict[str, Any] = {
        "family": family,
        "d_model": d_model,
        "n_layer": reader.size("num_hidden_layers", 32 if mamba1 else 64),
        "vocab_size": reader.size("vocab_size", 50280 if mamba1 else 32768),
        "d_conv": reader.size("conv_kernel", 4),
        "bias": reader.flag("use_bias", False),
        "conv_bias": reader.flag("use_conv_bias", True),
        "norm_eps": reader.number("layer_norm_epsilon", 1e-5),
        "tie_embeddings": tie if isinstance(tie, bool) else None,
        "layout": "huggingface",
    }
    expand = reader.number("expand", 2)
    if mamba1:
        d_inner = reader.size("intermediate_size", int(expand * d_model))
        rank = values.get("time_step_rank", "auto")
        dt_rank = math.ceil(d_model / 16) if rank == "auto" else reader.size("time_step_rank")
        return ModelConfig(**common, d_inner=d_inner, d_state=reader.size("state_size", 16), dt_rank=dt_rank)
    if not reader.flag("rms_norm", True):
        raise reader.fail("Mamba-2 without its gated norm (rms_norm false) is not supported in this layout")
    return ModelConfig(
        **common,
        d_inner=int(expand * d_model),
        d_state=reader.size("state_size", 128),
        headdim=reader.size("head_dim", 64),
        ngroups=reader.size("n_groups", 8),
        chunk_size=reader.size("chunk_size", 256),
        dt_limit=reader.limits("time_step_limit"),
    )


__all__ = ["CONFIG_FILE", "Family", "ModelConfig", "parse_config", "read_config", "read_values"]
