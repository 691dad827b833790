"""Who decodes a model's single tokens: the fused kernels where they can, else the model itself."""

import importlib
import logging
import os
from typing import Any
from weakref import WeakKeyDictionary

import torch

from quamba.nn.linear import QLinear
from quamba.nn.model import MambaLM

# Asked for, since whole models have met their own steps on few devices so far.
VARIABLE = "QLOG_FUSED_DECODE"
# Integer dot products and what Triton compiles for begin here.
_LEAST_CAPABILITY = (8, 0)
# Launches that overlap.
_PDL_CAPABILITY = (9, 0)

_log = logging.getLogger(__name__)
_decoders: WeakKeyDictionary[MambaLM, tuple[torch.Tensor, Any]] = WeakKeyDictionary()


def decoder_of(model: Any) -> Any:
    """What `quamba.generation.generate` steps with.

    Where the environment variable QLOG_FUSED_DECODE is set, a quantized model on a CUDA device gets the fused kernels,
    replayed from CUDA graphs; where they do not run it, this is said once, and the model decodes by itself, as every
    other model does.
    """
    if not os.environ.get(VARIABLE) or not isinstance(model, MambaLM) or model.device.type != "cuda":
        return model
    mark = _quantized_part(model)
    if mark is None:
        return model
    known = _decoders.get(model)
    # Another device, or quantized anew: other tensors.
    if known is None or known[0] is not mark:
        known = _decoders[model] = (mark, _decoder(model))
    return model if known[1] is None else known[1]


def _quantized_part(model: MambaLM) -> torch.Tensor | None:
    return next((part.codes for part in model.layers.modules() if isinstance(part, QLinear)), None)


def _decoder(model: MambaLM) -> Any:
    capability = torch.cuda.get_device_capability(model.device)
    if capability < _LEAST_CAPABILITY:
        _log.warning(
            "compute capability %d.%d has no fused kernels (8.0 is the least): plain PyTorch decodes, with the same "
            "results but slower",
            *capability,
        )
        return None
    try:
        graphed = importlib.import_module("quamba.decoding.graphed")
        launch, plan, runner = (
            importlib.import_module(f"quamba.{name}") for name in ("kernels.launch", "decoding.plan", "decoding.runner")
        )
    except ImportError as error:
        _log.warning("Triton cannot be imported (%s): plain PyTorch decodes, with the same results but slower", error)
        return None
    try:
        made = runner.Plan.of(model)
    except plan.NotFusedError as error:
        _log.warning("no fused kernels for this model, as %s: it decodes without them, slower", error)
        return None
    return graphed.GraphedDecoder(made, launch.Launch(pdl=capability >= _PDL_CAPABILITY))


__all__ = ["VARIABLE", "decoder_of"]
