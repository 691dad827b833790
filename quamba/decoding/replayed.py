"""A model as generation sees it: prompts by the model itself, single tokens by replayed graphs."""

import logging
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from quamba.nn.cache import Cache
from quamba.nn.model import MambaLM

# More rows of a batch than this are the model's own.
MAX_BATCH = 256

_log = logging.getLogger(__name__)


class Runner(Protocol):
    """Steps of one batch size, in buffers of its own."""

    def load(self, cache: Cache) -> None:
        """Take over what a cache remembers."""
        ...

    def store(self, batch: int) -> Cache:
        """A cache of the first rows."""
        ...

    def step(self, input_ids: Tensor) -> Tensor:
        """One more token a row; logits, overwritten by the next step."""
        ...


class GraphedCache:
    """The memory of one batch: in a cache, or in the buffers of the runner that it was handed to."""

    def __init__(self, cache: Cache, batch: int) -> None:
        self.cache, self.batch = cache, batch
        self.runner: Runner | None = None

    def settle(self) -> Cache:
        """Bring it back into a cache of its own."""
        if self.runner is not None:
            self.cache, self.runner = self.runner.store(self.batch), None
        return self.cache

    def select(self, rows: Tensor) -> "GraphedCache":
        """The memory of these rows (int64 indices)."""
        return GraphedCache(self.settle().select(rows), len(rows))


class ReplayedDecoder:
    """`quamba.generation.Decoder` over runners; batches of more rows than they take go to the model.

    Args:
        model: reads prompts.
        make: a runner for a batch size, a power of two.
    """

    def __init__(self, model: MambaLM, make: Callable[[int], Runner]) -> None:
        self._model, self._make = model, make
        self._runners: dict[int, Runner | None] = {}
        self._owners: dict[int, GraphedCache] = {}

    @property
    def device(self) -> torch.device:
        """Where its inputs have to be."""
        return self._model.device

    def new_cache(self, batch_size: int) -> GraphedCache:
        """The memory before the first token."""
        return GraphedCache(self._model.new_cache(batch_size), batch_size)

    def prefill(self, input_ids: Tensor, lengths: Tensor | None, cache: GraphedCache) -> Tensor:
        """Logits float32 [Bt, V] of each row's last real position."""
        return self._model.prefill(input_ids, lengths, cache.settle())

    @torch.no_grad()
    def step(self, input_ids: Tensor, cache: GraphedCache) -> Tensor:
        """Logits float32 [Bt, V] after one more token a row, int64 [Bt]."""
        if cache.runner is None:
            self._hand_over(cache)
        runner = cache.runner
        if runner is None:
            return self._model.step(input_ids, cache.settle())
        return runner.step(input_ids).clone()

    def _runner(self, size: int) -> Runner | None:
        """Of a batch size; None: the kernels do not run it here, which is said once."""
        if size not in self._runners:
            try:
                self._runners[size] = self._made(size)
            except Exception as error:
                # Of one row nobody knows better; many may not fit a smaller device.
                if size == 1:
                    raise
                _log.warning(
                    "batches of %d decode in plain PyTorch, slower, as their kernels fail here (%s: %s)",
                    size,
                    type(error).__name__,
                    " ".join(str(error).split())[:200],
                )
                self._runners[size] = None
        return self._runners[size]

    def _made(self, size: int) -> Runner:
        try:
            return self._make(size)
        except torch.OutOfMemoryError:
            self.release()
        return self._make(size)

    def release(self) -> None:
        """Give back the memory of batch sizes that no cache is in; it is taken again when one is."""
        for size, runner in list(self._runners.items()):
            owner = self._owners.get(size)
            if runner is not None and (owner is None or owner.runner is not runner):
                del self._runners[size]
                self._owners.pop(size, None)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def sizes(self) -> tuple[int, ...]:
        """Batch sizes that have memory."""
        return tuple(size for size, runner in self._runners.items() if runner is not None)

    def _hand_over(self, cache: GraphedCache) -> None:
        if cache.batch > MAX_BATCH:
            return
        size = 1 << (cache.batch - 1).bit_length()
        runner = self._runner(size)
        if runner is None:
            return
        owner = self._owners.get(size)
        if owner is not None and owner.runner is runner:
            owner.settle()
        runner.load(cache.cache)
        cache.runner, self._owners[size] = runner, cache


__all__ = ["MAX_BATCH", "GraphedCache", "ReplayedDecoder", "Runner"]
