"""Who decodes a model's single tokens and reads its prompts: the fused kernels where they can, else the model."""

import importlib
import logging
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from quamba.decoding.captured import CapturedDecoder
from quamba.kernels.ops import plain_alone
from quamba.nn.cache import Cache
from quamba.nn.linear import QLinear
from quamba.nn.model import MambaLM

# "0": models decode and read by themselves.
VARIABLE = "QLOG_FUSED_DECODE"
# Integer dot products and what Triton compiles for begin here.
_LEAST_CAPABILITY = (8, 0)
# Launches that overlap.
_PDL_CAPABILITY = (9, 0)
# Of logits. Random models, which rounding drives apart most, were seen up to 0.14 apart; other logits are 1.4.
_TOLERANCE = 0.5
# Where a model keeps what was made of it.
_MADE = "_fused"

_log = logging.getLogger(__name__)


class _Made:
    """What was made of a model's tensors, of which `mark` is one; a copy of the model has none."""

    def __init__(self, mark: Tensor | None) -> None:
        self.mark = mark
        self.parts: dict[str, Any] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Made":
        return _Made(None)


def decoder_of(model: Any) -> Any:
    """What `quamba.generation.generate` steps with.

    A quantized model on a CUDA device gets the fused kernels, replayed from CUDA graphs, unless
    the environment variable QLOG_FUSED_DECODE is 0; where they do not run it, this is said once, and the model's own
    steps are replayed. Every other model decodes by itself.
    """
    decoder = _part(model, "decoder", _decoder)
    return model if decoder is None else decoder


def reader_of(model: MambaLM) -> Any:
    """What reads a model's prompts in its place, a `quamba.prompts.reader.PromptReader`; None: the model itself does.

    As with `decoder_of`, and the variable is the same.
    """
    return _part(model, "reader", _reader)


def _part(model: Any, name: str, make: Callable[[Any, MambaLM], Any]) -> Any:
    if os.environ.get(VARIABLE) == "0" or not isinstance(model, MambaLM) or model.device.type != "cuda":
        return None
    mark = _quantized_part(model)
    if mark is None:
        return None
    made = model.__dict__.get(_MADE)
    # Another device, or quantized anew: other tensors.
    if made is None or made.mark is not mark:
        made = model.__dict__[_MADE] = _Made(mark)
    if "plan" not in made.parts:
        made.parts["plan"] = _plan(model)
    if name not in made.parts:
        # While it is compared with the model, the model runs by itself.
        made.parts[name] = None
        made.parts[name] = make(made.parts["plan"], model)
    return made.parts[name]


def _quantized_part(model: MambaLM) -> Tensor | None:
    parts = (part for part in model.layers.modules() if isinstance(part, QLinear))
    return next((part.codes for part in parts), None)


def launch_for(device: torch.device) -> Any:
    """How kernels are launched on a CUDA device."""
    launch = importlib.import_module("quamba.kernels.launch")
    return launch.Launch(pdl=torch.cuda.get_device_capability(device) >= _PDL_CAPABILITY)


def _plan(model: MambaLM) -> Any:
    capability = torch.cuda.get_device_capability(model.device)
    if capability < _LEAST_CAPABILITY:
        _log.warning(
            "compute capability %d.%d has no fused kernels (8.0 is the least): plain PyTorch runs, with the same "
            "results but slower",
            *capability,
        )
        return None
    try:
        runner, plan = (importlib.import_module(f"quamba.decoding.{name}") for name in ("runner", "plan"))
    except ImportError as error:
        _log.warning("Triton cannot be imported (%s): plain PyTorch runs, with the same results but slower", error)
        return None
    try:
        return runner.Plan.of(model)
    except plan.NotFusedError as error:
        _log.warning("no fused kernels for this model, as %s: it runs without them, slower", error)
        return None


def _decoder(plan: Any, model: MambaLM) -> Any:
    if plan is None:
        return _captured(model)
    decoder = importlib.import_module("quamba.decoding.graphed").GraphedDecoder(plan, launch_for(model.device))
    reason = disagreement(decoder, model)
    if reason is None:
        return decoder
    _log.warning("fused kernels are not used, as %s: plain PyTorch decodes, slower", reason)
    return _captured(model)


def _captured(model: MambaLM) -> Any:
    """The model's own steps from CUDA graphs; None: they cannot be captured, or go wrong."""
    decoder = CapturedDecoder(model)
    reason = disagreement(decoder, model)
    if reason is None:
        return decoder
    _log.warning("steps are not replayed from CUDA graphs, as %s: the model steps by itself, slower", reason)
    return None


def _reader(plan: Any, model: MambaLM) -> Any:
    # Prompts of floats are for the model's own modules, which is nothing to be told.
    if plan is None or plan.of_floats:
        return None
    reading, error = (importlib.import_module(f"quamba.{name}") for name in ("prompts.reader", "decoding.plan"))
    try:
        reader = reading.PromptReader(plan, launch_for(model.device))
        reason = reading_disagreement(reader, model)
    except error.NotFusedError as unfit:
        reason = str(unfit)
    if reason is None:
        return reader
    _log.warning("fused kernels do not read prompts, as %s: plain PyTorch does, slower", reason)
    return None


@torch.no_grad()
def disagreement(decoder: Any, model: MambaLM) -> str | None:
    """Why a decoder cannot stand for its model: it fails, or a few steps behind a prompt say something else."""
    tokens = _tokens(model, 10)
    prompt, rest = tokens[None, :8], tokens[8:]

    def steps(of: Any) -> Tensor:
        cache = of.new_cache(1)
        of.prefill(prompt, None, cache)
        return torch.stack([of.step(token[None], cache) for token in rest])

    return _difference(lambda: steps(decoder), lambda: steps(model))


@torch.no_grad()
def reading_disagreement(reader: Any, model: MambaLM) -> str | None:
    """Why a reader cannot stand for its model: it fails, or says something else of two prompts and what follows them.

    One prompt is longer than the other, and both than what the kernels take at once.
    """
    ids = _tokens(model, 2 * 81).view(2, 81)
    lengths = torch.tensor([70, 33], device=model.device)

    def logits(read: Callable[[Tensor, Tensor | None, Cache], Tensor]) -> Tensor:
        cache = model.new_cache(2)
        prompts, more = read(ids[:, :70], lengths, cache), read(ids[:, 70:], None, cache)
        return model.head(torch.cat((prompts[0], prompts[1, :33], more.flatten(0, 1))))

    return _difference(lambda: logits(reader.hidden_states), lambda: logits(model.own_hidden_states))


def _tokens(model: MambaLM, count: int) -> Tensor:
    return (torch.arange(count, device=model.device) * 7919 + 17) % model.config.vocab_size


def _difference(run: Callable[[], Tensor], own: Callable[[], Tensor]) -> str | None:
    """Codes that lie between two may fall to either side, which grows from layer to layer: logits agree when they have
    more in common than not."""
    try:
        with plain_alone():
            found = run().double()
    except Exception as error:  # noqa: BLE001  # Compilers and drivers raise what they like.
        return f"they fail here ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    with plain_alone():
        expected = own().double()
    apart = float((found - expected).norm() / expected.norm().clamp(min=1e-30))
    # NaN is no agreement.
    return None if apart < _TOLERANCE else f"their logits are off by {apart:.2g} of their size"


__all__ = ["VARIABLE", "decoder_of", "disagreement", "launch_for", "reader_of", "reading_disagreement"]
