"""Who watches tensors on a device: kernels of this package where they can, else `Station`, with the same results."""

import importlib
import logging
from typing import TYPE_CHECKING

import torch

from quamba.models.config import ModelConfig

if TYPE_CHECKING:
    from quamba.observers.device_sweep import DeviceSweep

# What Triton compiles for begins here.
_LEAST_CAPABILITY = (7, 5)
# Tokens of a batch on a CUDA device: beyond it products are not faster.
_TOKENS = 16384
# Of free memory, what a batch may take; and how many tensors of a layer's inner width are alive at once, at most.
_MEMORY_SHARE = 0.5
_TENSORS = 16

_log = logging.getLogger(__name__)


def device_sweep(device: torch.device, documents: int) -> "DeviceSweep | None":
    """What watches a sweep over so many documents; None: a `Station` for each tensor.

    Where kernels cannot be had on a CUDA device, this is said in a warning.
    """
    if device.type != "cuda":
        return None
    capability = torch.cuda.get_device_capability(device)
    if capability < _LEAST_CAPABILITY:
        _log.warning("compute capability %d.%d: plain PyTorch watches activations, slower", *capability)
        return None
    try:
        module = importlib.import_module("quamba.observers.device_sweep")
    except ImportError as error:
        _log.warning("Triton cannot be imported (%s): plain PyTorch watches activations, slower", error)
        return None
    sweep: DeviceSweep = module.DeviceSweep(documents)
    return sweep


def tokens_at_once(config: ModelConfig, device: torch.device) -> int:
    """Tokens of a batch that are watched at once on a CUDA device, as its free memory allows."""
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(_TOKENS, int(free * _MEMORY_SHARE) // (_TENSORS * 4 * config.d_inner)))


__all__ = ["device_sweep", "tokens_at_once"]
