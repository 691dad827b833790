"""Who decodes a model's single tokens: the fused kernels where they can, else the model itself."""

import importlib
import logging
import os
from typing import Any
from weakref import WeakKeyDictionary

import torch

from quamba.nn.linear import QLinear
from quamba.nn.model import MambaLM

# "0": models decode by themselves.
VARIABLE = "QLOG_FUSED_DECODE"
# Integer dot products and what Triton compiles for begin here.
_LEAST_CAPABILITY = (8, 0)
# Launches that overlap, and weights that are brought into the cache ahead of them.
_PDL_CAPABILITY = (9, 0)
# Of a second-level cache, what the next layer's first weights may take.
_AHEAD_SHARE = 0.0
# Of logits. Random models, which rounding drives apart most, were seen up to 0.14 apart; other logits are 1.4.
_TOLERANCE = 0.5

_log = logging.getLogger(__name__)
_decoders: WeakKeyDictionary[MambaLM, tuple[torch.Tensor, Any]] = WeakKeyDictionary()


def decoder_of(model: Any) -> Any:
    """What `quamba.generation.generate` steps with.

    A model on a CUDA device whose activations are quantized gets the fused kernels, replayed from CUDA graphs, unless
    the environment variable QLOG_FUSED_DECODE is 0; where they do not run it, this is said once, and the model decodes
    by itself, as every other model does.
    """
    if os.environ.get(VARIABLE) == "0" or not isinstance(model, MambaLM) or model.device.type != "cuda":
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
    parts = (part for part in model.layers.modules() if isinstance(part, QLinear) and part.in_scale is not None)
    return next((part.codes for part in parts), None)


def launch_for(device: torch.device) -> Any:
    """How kernels are launched on a CUDA device."""
    launch = importlib.import_module("quamba.kernels.launch")
    properties = torch.cuda.get_device_properties(device)
    if (properties.major, properties.minor) < _PDL_CAPABILITY:
        return launch.Launch()
    return launch.Launch(pdl=True, ahead_bytes=int(properties.L2_cache_size * _AHEAD_SHARE))


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
        plan, runner = (importlib.import_module(f"quamba.decoding.{name}") for name in ("plan", "runner"))
    except ImportError as error:
        _log.warning("Triton cannot be imported (%s): plain PyTorch decodes, with the same results but slower", error)
        return None
    try:
        made = runner.Plan.of(model)
    except plan.NotFusedError as error:
        _log.warning("no fused kernels for this model, as %s: it decodes without them, slower", error)
        return None
    decoder = graphed.GraphedDecoder(made, launch_for(model.device))
    reason = disagreement(decoder, model)
    if reason is None:
        return decoder
    _log.warning("fused kernels are not used, as %s: plain PyTorch decodes, slower", reason)
    return None


@torch.no_grad()
def disagreement(decoder: Any, model: MambaLM) -> str | None:
    """Why a decoder cannot stand for its model: it fails, or a few steps behind a prompt say something else.

    Codes that lie between two may fall to either side, which grows from layer to layer: logits agree when they have
    more in common than not.
    """
    tokens = (torch.arange(10, device=model.device) * 7919 + 17) % model.config.vocab_size
    prompt, rest = tokens[None, :8], tokens[8:]
    cache, own = decoder.new_cache(1), model.new_cache(1)
    try:
        decoder.prefill(prompt, None, cache)
        found = torch.stack([decoder.step(token[None], cache) for token in rest]).double()
    except Exception as error:  # noqa: BLE001  # Compilers and drivers raise what they like.
        return f"they fail here ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    model.prefill(prompt, None, own)
    expected = torch.stack([model.step(token[None], own) for token in rest]).double()
    apart = float((found - expected).norm() / expected.norm().clamp(min=1e-30))
    # NaN is no agreement.
    return None if apart < _TOLERANCE else f"their logits are off by {apart:.2g} of their size"


__all__ = ["VARIABLE", "decoder_of", "disagreement", "launch_for"]
