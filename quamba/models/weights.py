"""Reading a model's tensors from disk: safetensors, or pickled state dicts with `weights_only`."""

import hashlib
import json
import pickle
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from quamba.errors import ModelError

SAFETENSORS = "model.safetensors"
_PICKLED = "pytorch_model.bin"
WEIGHT_FILES = (SAFETENSORS, f"{SAFETENSORS}.index.json", _PICKLED, f"{_PICKLED}.index.json")
_MAX_HEADER_BYTES = 100 << 20


def find_weight_files(directory: Path) -> tuple[Path, ...]:
    """The files that hold the weights of the model in `directory`, safetensors first; several where they are sharded.

    Raises:
        ModelError: there are none, or the index names one that is not there.
    """
    for name in WEIGHT_FILES:
        path = directory / name
        if not path.is_file():
            continue
        return _shards(path) if name.endswith(".json") else (path,)
    raise ModelError(f"{directory}: no weights there (looked for {', '.join(WEIGHT_FILES)}); fetch the model again")


def _shards(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{index}: cannot be read as an index of weights ({error})") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise ModelError(f"{index}: names {name!r}, which is no file beside it")
        if not (index.parent / name).is_file():
            raise ModelError(f"{index.parent / name}: not there, though the index names it; fetch the model again")
    return tuple(index.parent / name for name in names)


def check_weight_files(paths: tuple[Path, ...]) -> None:
    """Look at the files' frames without reading the weights, so that a damaged file is found before any work.

    Raises:
        ModelError: a file is truncated or no weights file at all.
    """
    for path in paths:
        if path.suffix == ".safetensors":
            _check_safetensors(path)
        elif not zipfile.is_zipfile(path) and not _is_legacy_pickle(path):
            raise _damaged(path, "it is no PyTorch checkpoint")


def _check_safetensors(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 0 < length <= min(_MAX_HEADER_BYTES, size - 8):
            raise _damaged(path, "its header is cut off")
        try:
            header: Mapping[str, Any] = json.loads(file.read(length))
            ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            raise _damaged(path, "its header cannot be read") from None
    if size != 8 + length + max(ends, default=0):
        raise _damaged(path, f"it has {size} bytes where its header announces {8 + length + max(ends, default=0)}")


def _is_legacy_pickle(path: Path) -> bool:
    # torch.save before 1.6 wrote a pickle stream; protocol 2 starts with these two bytes.
    with path.open("rb") as file:
        return file.read(2) == b"\x80\x02"


def _damaged(path: Path, why: str) -> ModelError:
    return ModelError(f"{path}: damaged or truncated, {why}; fetch the model again")


def read_weights(paths: tuple[Path, ...]) -> dict[str, Tensor]:
    """All tensors by name, on the CPU, in the dtypes of the files.

    Raises:
        ModelError: a file is damaged, or holds anything but tensors.
    """
    tensors: dict[str, Tensor] = {}
    for path in paths:
        try:
            loaded = (
                load_file(path)
                if path.suffix == ".safetensors"
                else torch.load(path, map_location="cpu", weights_only=True)
            )
        except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
            raise _damaged(path, f"it cannot be read ({_first_line(error)})") from None
        except pickle.UnpicklingError as error:
            # What weights_only forbids.
            raise ModelError(f"{path}: refused: {_first_line(error)}") from None
        if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
            raise ModelError(f"{path}: must hold a flat mapping from names to tensors")
        tensors.update(loaded)
    return tensors


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def digest_files(paths: tuple[Path, ...]) -> str:
    """ "sha256:..." over the files' bytes, in their order."""
    digest = hashlib.sha256()
    for path in paths:
        for block in _blocks(path):
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            yield block


__all__ = ["SAFETENSORS", "WEIGHT_FILES", "check_weight_files", "digest_files", "find_weight_files", "read_weights"]
