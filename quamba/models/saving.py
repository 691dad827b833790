"""A quantized model on disk: `model.safetensors`, `config.json` and its tokenizer, whole or not there at all."""

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from quamba.errors import ModelError, SaveError
from quamba.models.config import CONFIG_FILE, read_values
from quamba.models.quantization import FORMAT_VERSION, QUANT_METHOD
from quamba.models.structure import Structure
from quamba.models.weights import SAFETENSORS, digest_files
from quamba.nn.linear import Linear
from quamba.nn.model import MambaLM

# What a model's own tokenizer can be made of.
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json")


def save_model(
    model: MambaLM, target: Path, *, base: Path, facts: Mapping[str, Any], more_files: Mapping[str, bytes] | None = None
) -> str:
    """Write a quantized model as a directory that loads back by itself, bit-equal.

    It is written beside its place and moved there when everything is on the disk, config.json last: what was
    interrupted has no config.json, and a name that begins with a dot.

    Args:
        model: quantized.
        target: the directory; one that is there is replaced.
        base: the directory of the model that it was made of, for its config.json and its tokenizer.
        facts: what `quantization_config` says beside the structure: recipe, calibration, versions.
        more_files: others to keep there, by name.

    Returns:
        "sha256:..." of model.safetensors.

    Raises:
        SaveError: it cannot be written.
        ModelError: `base` cannot be read.
    """
    partial = target.parent / f".{target.name}.{secrets.token_hex(4)}.partial"
    try:
        partial.mkdir(parents=True)
        try:
            digest = _write(model, partial, base, facts, more_files or {})
            _move(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise SaveError(f"the model cannot be saved in {target}: {error.strerror or error}; make room there") from error
    return digest


def _write(
    model: MambaLM, directory: Path, base: Path, facts: Mapping[str, Any], more_files: Mapping[str, bytes]
) -> str:
    weights = directory / SAFETENSORS
    save_file(_apart(saved_tensors(model)), weights, metadata={"format": "pt"})
    digest = digest_files((weights,))
    for name, content in more_files.items():
        (directory / name).write_bytes(content)
    names = [name for name in _TOKENIZER_FILES if (base / name).is_file()]
    for path in (*(base / name for name in names), *sorted(base.glob("*.model"))):
        shutil.copyfile(path, directory / path.name)
    for path in directory.iterdir():
        _sync(path)
    config = read_values(base)
    if not isinstance(config, dict):
        raise ModelError(f"{base / CONFIG_FILE}: must hold a JSON object")
    config["tie_embeddings" if model.config.layout == "mamba_ssm" else "tie_word_embeddings"] = _tied(model)
    config["quantization_config"] = {
        "quant_method": QUANT_METHOD,
        "format_version": FORMAT_VERSION,
        "structure": Structure.of(model).to_dict(),
        "weights_digest": digest,
        **facts,
    }
    path = directory / CONFIG_FILE
    path.write_text(json.dumps(config, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    # The library that writes tensors makes files for their owner's eyes alone.
    shutil.copymode(path, weights)
    _sync(path)
    _sync(directory)
    return digest


def _move(partial: Path, target: Path) -> None:
    aside = target.parent / f"{partial.name}.replaced"
    if target.exists():
        target.rename(aside)
    partial.rename(target)
    _sync(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _tied(model: MambaLM) -> bool:
    head, embedding = model.lm_head, model.embedding
    return (
        isinstance(head, Linear) and head.weight.data_ptr() == getattr(embedding, "weight", head.weight[1:]).data_ptr()
    )


def saved_tensors(model: MambaLM) -> Iterator[tuple[str, Tensor]]:
    """A model's tensors as they are saved: a tied head not at all, and float weights in half precision where they fit.

    Args:
        model: float or quantized.

    Yields:
        names and tensors, on the CPU; what was float32 and is float16 or bfloat16 here has the same values.
    """
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and _tied(model):
            continue
        stored = tensor.detach()
        if name.endswith(".weight") and stored.dtype == torch.float32:
            stored = _narrowest(stored)
        yield name if name.startswith("lm_head.") else f"backbone.{name}", stored.cpu().contiguous()


def _apart(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """By name; safetensors takes no tensors that share memory, as a scale of two neighbours does."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors:
        found[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return found


def size_bytes(model: MambaLM) -> int:
    """Bytes of all tensors of a model, float or quantized, as they are saved."""
    return sum(tensor.nbytes for _, tensor in saved_tensors(model))


def _narrowest(weight: Tensor) -> Tensor:
    for dtype in (torch.float16, torch.bfloat16):
        half = weight.to(dtype)
        if torch.equal(half.to(weight.dtype), weight):
            return half
    return weight


__all__ = ["save_model", "saved_tensors", "size_bytes"]
