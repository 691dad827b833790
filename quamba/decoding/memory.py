"""What a layer remembers between steps, and works with, in buffers that stay where they are."""

from dataclasses import dataclass

from torch import Tensor

from quamba.nn.cache import LayerCache
from quamba.qtypes import QTensor


@dataclass(frozen=True, slots=True)
class Memory:
    """A layer's memory in fixed buffers: ring [Bt, K, C] and state [Bt, ...], int8 or float32."""

    ring: Tensor
    state: Tensor

    def load(self, cache: LayerCache) -> None:
        """Take over what a cache remembers, as if the next token's time were K - 1."""
        self.ring.zero_()
        self.state.zero_()
        if cache.conv is not None:
            self.ring[: len(cache.conv), :-1] = cache.conv
        state = cache.state.codes if isinstance(cache.state, QTensor) else cache.state
        if state is not None:
            self.state[: len(state)] = state

    def store(self, batch: int, time: int, scale: Tensor | None) -> LayerCache:
        """A cache of the first rows before the token at `time`; `scale` is the state's, None of floats."""
        K = self.ring.shape[1]
        order = [(time + 1 + tap) % K for tap in range(K - 1)]
        state = self.state[:batch].clone()
        return LayerCache(self.ring[:batch, order].clone(), state if scale is None else QTensor(state, scale))


@dataclass(frozen=True, slots=True)
class Scratch:
    """What a layer's kernels hand on; all layers share it.

    Attributes:
        normed: what in_proj reads, int8 [Bt, D].
        projected: what it gives, int8 [Bt, W].
        between: what kernels between the projections hand on besides; a layer's own.
        values: float32 [Bt, E].
        codes: what out_proj reads, int8 [Bt, E].
    """

    normed: Tensor
    projected: Tensor
    between: tuple[Tensor, ...]
    values: Tensor
    codes: Tensor


__all__ = ["Memory", "Scratch"]
