"""A model's own prefill and step as CUDA graphs, for fixed shapes: whatever the model, none of its launches are left
to the processor."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from quamba.nn.cache import Cache, LayerCache
from quamba.nn.model import MambaLM
from quamba.qtypes import QTensor


def capture(run: Callable[[], Any], device: torch.device) -> tuple[torch.cuda.CUDAGraph, Any]:
    """The launches of a call, and what it returned: tensors that a replay fills anew.

    Args:
        run: reads and writes tensors that stay where they are, and waits for nothing.
        device: a CUDA device.
    """
    with torch.cuda.device(device):
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch gives it no types
        stream.wait_stream(torch.cuda.current_stream())
        # Twice: kernels are compiled and chosen, which cannot be done while capturing.
        with torch.cuda.stream(stream):
            for _ in range(2):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = run()
    return graph, result


class CapturedPrefill:
    """`MambaLM.prefill` of one shape, from a graph.

    Args:
        model: on a CUDA device.
        batch: rows.
        length: tokens of each.
    """

    def __init__(self, model: MambaLM, batch: int, length: int) -> None:
        self._ids = torch.zeros(batch, length, dtype=torch.int64, device=model.device)
        with torch.no_grad():
            self._graph, (self._logits, self._cache) = capture(lambda: self._run(model), model.device)

    def _run(self, model: MambaLM) -> tuple[Tensor, Cache]:
        cache = model.new_cache(len(self._ids))
        return model.prefill(self._ids, None, cache), cache

    def __call__(self, input_ids: Tensor) -> tuple[Tensor, Cache]:
        """Logits float32 [Bt, V] of the last position, and what is remembered."""
        with torch.cuda.device(self._ids.device):
            self._ids.copy_(input_ids)
            self._graph.replay()
        return self._logits.clone(), Cache([_copied(layer) for layer in self._cache.layers])


class CapturedStep:
    """`MambaLM.step` for one batch, from a graph.

    Args:
        model: on a CUDA device.
        cache: what is remembered before the first step; it is copied.
        batch: rows.
    """

    def __init__(self, model: MambaLM, cache: Cache, batch: int) -> None:
        self._ids = torch.zeros(batch, dtype=torch.int64, device=model.device)
        self._cache = Cache([_copied(layer) for layer in cache.layers])
        with torch.no_grad():
            self._graph, self._logits = capture(lambda: self._run(model), model.device)
        # What it remembers has gone through the steps that capturing took.
        self.load(cache)

    def _run(self, model: MambaLM) -> Tensor:
        cache = Cache([LayerCache(layer.conv, layer.state) for layer in self._cache.layers])
        logits = model.step(self._ids, cache)
        for kept, new in zip(self._cache.layers, cache.layers, strict=True):
            _copy(kept, new)
        return logits

    @property
    def cache(self) -> Cache:
        """What is remembered, in buffers that the next step changes."""
        return self._cache

    def load(self, cache: Cache) -> None:
        """Go on from what another cache remembers."""
        for kept, new in zip(self._cache.layers, cache.layers, strict=True):
            _copy(kept, new)

    def step(self, input_ids: Tensor) -> Tensor:
        """Logits float32 [Bt, V], overwritten by the next step."""
        with torch.cuda.device(self._ids.device):
            self._ids.copy_(input_ids)
            self._graph.replay()
        logits: Tensor = self._logits
        return logits


def _copied(layer: LayerCache) -> LayerCache:
    state = layer.state
    if isinstance(state, QTensor):
        state = QTensor(state.codes.clone(), state.scale)
    elif state is not None:
        state = state.clone()
    return LayerCache(None if layer.conv is None else layer.conv.clone(), state)


def _copy(target: LayerCache, source: LayerCache) -> None:
    if target.conv is None or source.conv is None or target.state is None or source.state is None:
        raise ValueError("a captured step goes on from a prompt")
    target.conv.copy_(source.conv)
    if isinstance(target.state, QTensor) and isinstance(source.state, QTensor):
        target.state.codes.copy_(source.state.codes)
    elif isinstance(target.state, Tensor) and isinstance(source.state, Tensor):
        target.state.copy_(source.state)
    else:
        raise TypeError("one state is quantized, the other is not")


__all__ = ["CapturedPrefill", "CapturedStep", "capture"]
