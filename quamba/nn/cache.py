"""What a model remembers between calls: the convolution's last inputs and the scan's state, for each layer."""

from dataclasses import dataclass, field

from torch import Tensor

from quamba.qtypes import QTensor


@dataclass(slots=True)
class LayerCache:
    """One layer's memory; None before the first token.

    Attributes:
        conv: the last K - 1 inputs of the convolution [Bt, K - 1, C], float32 or int8 codes.
        state: [Bt, E, N] or [Bt, H, P, N], float32 or codes with their scale.
    """

    conv: Tensor | None = None
    state: Tensor | QTensor | None = None

    def select(self, rows: Tensor) -> "LayerCache":
        """The memory of these rows (int64 indices)."""
        state = self.state
        if isinstance(state, QTensor):
            state = QTensor(state.codes[rows], state.scale)
        elif state is not None:
            state = state[rows]
        return LayerCache(conv=None if self.conv is None else self.conv[rows], state=state)


@dataclass(slots=True)
class Cache:
    """The memory of all layers of a model for one batch."""

    layers: list[LayerCache] = field(default_factory=list)

    @classmethod
    def empty(cls, n_layer: int) -> "Cache":
        """The memory before the first token."""
        return cls([LayerCache() for _ in range(n_layer)])

    def select(self, rows: Tensor) -> "Cache":
        """The memory of these rows (int64 indices)."""
        return Cache([layer.select(rows) for layer in self.layers])


__all__ = ["Cache", "LayerCache"]
