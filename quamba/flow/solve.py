"""GPTQ over a model, layer by layer: each is solved on what the layers before it, solved already, make of the data.

Activations are float throughout (algorithm 6.1): what rounding them costs is another matter, and is calibrated apart.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from quamba.flow.batches import TokenBatch
from quamba.flow.convert import float_linear
from quamba.gptq import Hessian, gptq
from quamba.granularity import WeightScheme
from quamba.nn.mamba2 import Mamba2Mixer
from quamba.nn.model import TOKENS_AT_ONCE, Layer, MambaLM
from quamba.primitives import QuantizedWeight

# The inputs that are gathered in one pass over a layer. x_proj and dt_proj are small, and rounded.
_INPUTS = {"in_proj:input": "in_proj", "out_proj:input": "out_proj"}


class Solver:
    """Walks through the layers with the residual streams of all documents in memory.

    Args:
        model: float; layers are to be solved in their order, each before it is converted.
        batches: the calibration documents.
        act_order: input channels with the largest activations first.
    """

    def __init__(self, model: MambaLM, batches: Sequence[TokenBatch], act_order: bool = False) -> None:
        self._model = model
        self._act_order = act_order
        device = model.device
        parts = [part for batch in batches for part in (_cache_sized(batch) if device.type == "cpu" else [batch])]
        # Of batches without padding nothing; of others lengths, and where their real tokens are.
        self._lengths, self._real = zip(*(_padding(part, device) for part in parts), strict=True)
        with torch.no_grad():
            self._streams: list[Tensor] = [model.embedding(part.input_ids.to(device)) for part in parts]

    @torch.no_grad()
    def solve(self, layer: Layer, scheme: WeightScheme) -> dict[str, QuantizedWeight]:
        """The layer's weights; the documents have passed through it with them afterwards.

        Raises:
            DataError: an activation's second moments cannot be factored.
        """
        hessians: dict[str, Hessian] = {}

        def gather(real: Tensor | None, columns: Mapping[str, int], values: Tensor, _counts: Tensor | None) -> None:
            name = _INPUTS.get(next(iter(columns)))
            if name is None:
                return
            hessian = hessians.setdefault(name, Hessian(values.shape[-1], values.device))
            hessian.add(_taken(values, real))

        mixer = layer.mixer
        for stream, lengths, real in zip(self._streams, self._lengths, self._real, strict=True):
            mixer(layer.norm(stream), lengths, None, partial(gather, real))
        solved = {}
        for name, hessian in hessians.items():
            linear = float_linear(getattr(mixer, name))
            blocks = in_proj_blocks(mixer) if name == "in_proj" else None
            solved[name] = gptq(linear.weight, hessian.matrix(), scheme, blocks=blocks, act_order=self._act_order)
            linear.weight = solved[name].dequantize()
        for stream, lengths in zip(self._streams, self._lengths, strict=True):
            stream.add_(mixer(layer.norm(stream), lengths, None, None))
        return solved

    @torch.no_grad()
    def solve_head(self, scheme: WeightScheme) -> QuantizedWeight:
        """The head's weight, after all layers."""
        head = float_linear(self._model.lm_head)
        hessian = Hessian(head.weight.shape[1], head.weight.device)
        for stream, real in zip(self._streams, self._real, strict=True):
            hessian.add(_taken(self._model.norm_f(stream), real))
        return gptq(head.weight, hessian.matrix(), scheme, act_order=self._act_order)


class Solutions:
    """What a solver has found, for recipes that can share it."""

    def __init__(self, solver: Solver) -> None:
        self._solver = solver
        self._layers: dict[int, dict[str, QuantizedWeight]] = {}
        self._head: QuantizedWeight | None = None

    def layer(self, index: int, layer: Layer, scheme: WeightScheme) -> dict[str, QuantizedWeight]:
        """Of a layer, solved when it is first asked for; see `Solver.solve`."""
        if index not in self._layers:
            self._layers[index] = self._solver.solve(layer, scheme)
        return self._layers[index]

    def head(self, scheme: WeightScheme) -> QuantizedWeight:
        """Of the head."""
        if self._head is None:
            self._head = self._solver.solve_head(scheme)
        return self._head


def _cache_sized(batch: TokenBatch) -> list[TokenBatch]:
    """The batch in parts that a CPU's caches hold, each no wider than its own longest row."""
    rows = max(1, TOKENS_AT_ONCE // batch.input_ids.shape[1])
    parts = zip(torch.split(batch.input_ids, rows), torch.split(batch.lengths, rows), strict=True)
    return [TokenBatch(input_ids[:, : int(lengths.max())], lengths) for input_ids, lengths in parts]


def in_proj_blocks(mixer: torch.nn.Module) -> tuple[int, ...] | None:
    """The blocks of in_proj's rows that have a scale each where a weight has one."""
    if not isinstance(mixer, Mamba2Mixer):
        return None
    c = mixer.config
    GN = c.ngroups * c.d_state
    return (c.d_inner, c.d_inner, GN, GN, c.nheads)


def _padding(batch: TokenBatch, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """Lengths and flat positions of the real tokens of a batch on a device; None for both where all are real."""
    width = batch.input_ids.shape[1]
    real = torch.arange(width) < batch.lengths[:, None]
    if bool(real.all()):
        return None, None
    return batch.lengths.to(device), real.flatten().nonzero().flatten().to(device)


def _taken(values: Tensor, real: Tensor | None) -> Tensor:
    """The real tokens of [Bt, T, D]."""
    return values if real is None else values.flatten(0, 1)[real]


__all__ = ["Solutions", "Solver", "in_proj_blocks"]
