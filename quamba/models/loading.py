"""Models from a directory or from the Hugging Face hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from quamba.errors import DeviceError, ModelError
from quamba.kernels.ops import implementations
from quamba.models.build import build_model
from quamba.models.config import CONFIG_FILE, ModelConfig, read_config
from quamba.models.quantization import Quantization, read_quantization
from quamba.models.restore import restore_model
from quamba.models.tokenizer import Tokenizer, load_tokenizer
from quamba.models.weights import WEIGHT_FILES, check_weight_files, digest_files, find_weight_files, read_weights
from quamba.nn.model import MambaLM

_HUB_FILES = (CONFIG_FILE, "*.json", *WEIGHT_FILES, "model-*.safetensors", "pytorch_model-*.bin", "*.model")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model with what belongs to it.

    Attributes:
        name: as the user gave it.
        directory: where it was read from.
        model: on its device: float32, or quantized as it was saved.
        config: its sizes.
        tokenizer: its own.
        digest: "sha256:..." of the files of weights.
        size_bytes: of those files.
        parameters: how many there are, tied ones once; 0 of a quantized model.
        quantization: how it was quantized before it was saved; None: it is float.
    """

    name: str
    directory: Path
    model: MambaLM
    config: ModelConfig
    tokenizer: Tokenizer
    digest: str
    size_bytes: int
    parameters: int
    quantization: Quantization | None = None

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.model.device

    def facts(self) -> dict[str, Any]:
        """What identifies it, for a record."""
        return {
            **self.config.facts(),
            "padded_vocab_size": self.model.padded_vocab_size,
            **({} if self.quantization else {"parameters": self.parameters}),
            "digest": self.digest,
            "tokenizer_digest": self.tokenizer.digest,
            **({} if self.quantization is None else {"base_model": self.quantization.base_model}),
        }


def load_model(name_or_path: str, device: str = "cpu") -> LoadedModel:
    """Load a Mamba-1 or Mamba-2 model: in float32, from mamba-ssm's layout or Hugging Face's, or quantized as saved.

    Args:
        name_or_path: a directory with config.json and weights, or a hub id such as "state-spaces/mamba-130m".
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        ModelError: it cannot be found, read or understood.
        DeviceError: the device is not there.
    """
    target = resolve_device(device)
    directory = find_directory(name_or_path)
    config = read_config(directory)
    files = find_weight_files(directory)
    check_weight_files(files)
    digest, quantization = digest_files(files), read_quantization(directory)
    if quantization is None:
        model = build_model(config, read_weights(files), str(directory))
    else:
        quantization.check_weights(digest)
        model = restore_model(config, quantization.structure, read_weights(files), str(directory))
    tokenizer = load_tokenizer(directory, vocab_size=model.padded_vocab_size)
    # What runs on the device belongs to what is loaded: its kernels' packages take seconds.
    implementations(target.type)
    unique = {buffer.data_ptr(): buffer.numel() for buffer in model.buffers()}
    return LoadedModel(
        name=name_or_path,
        directory=directory,
        model=model.to(target).eval(),
        config=config,
        tokenizer=tokenizer,
        digest=digest,
        size_bytes=sum(path.stat().st_size for path in files),
        parameters=0 if quantization else sum(unique.values()),
        quantization=quantization,
    )


def check_model(name_or_path: str) -> tuple[ModelConfig, Quantization | None]:
    """Its sizes and how it is quantized; what can be wrong with it on disk is found without reading its weights.

    Raises:
        ModelError: it cannot be found or understood, or its files are truncated.
    """
    directory = find_directory(name_or_path)
    config, quantization = read_config(directory), read_quantization(directory)
    check_weight_files(find_weight_files(directory))
    return config, quantization


def is_hub_id(name: str) -> bool:
    """Whether `name` can only be meant as a hub id: "org/name", and nothing of that name on disk."""
    parts = name.split("/")
    return len(parts) == 2 and all(parts) and not name.startswith((".", "~")) and not Path(name).exists()


def find_directory(name_or_path: str) -> Path:
    """The model's directory; a model from the hub is fetched into the hub's cache first.

    Raises:
        ModelError: there is no such directory, and the hub has no such model or cannot be reached.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise ModelError(f"{name_or_path}: not a directory; give the directory that holds config.json and the weights")
    if not is_hub_id(name_or_path):
        raise ModelError(f"{name_or_path}: no such directory; give a model's directory or a hub id (org/name)")
    # Imported here: a local model needs no hub client.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name_or_path, allow_patterns=list(_HUB_FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{name_or_path}: no such directory, and it could not be fetched from the hub ({reason[:200]})"
        ) from None


def resolve_device(device: str) -> torch.device:
    """The torch device for "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        DeviceError: it is not one of these, or this machine has no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cpu":
        return torch.device("cpu")
    kind, _, index = device.partition(":")
    if kind != "cuda" or (index and not index.isdecimal()) or device.endswith(":"):
        raise DeviceError(f"device must be auto, cpu, cuda or cuda:N, not {device!r}")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(index or 0) >= count:
        raise DeviceError(f"no device {device!r} here ({count} CUDA devices found); use --device cpu or auto")
    return torch.device(device)


__all__ = ["LoadedModel", "check_model", "find_directory", "is_hub_id", "load_model", "resolve_device"]
