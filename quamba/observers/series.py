"""Values collected over a sweep, in one growing buffer.

One buffer, and not a list of small tensors: thousands of small long-lived allocations between the large short-lived
ones of a forward pass leave the allocator's heap in pieces that fit none of them, and a process grows by a batch's
memory with every batch.
"""

import torch
from torch import Tensor


class Series:
    """A one-dimensional float32 tensor that values are appended to.

    Args:
        capacity: values expected; more are taken, at the price of a copy.
    """

    def __init__(self, capacity: int = 1024) -> None:
        self._capacity = max(1, capacity)
        self._buffer: Tensor | None = None
        self._count = 0

    @classmethod
    def of(cls, values: Tensor) -> "Series":
        """One that holds a one-dimensional tensor, which is not copied."""
        series = cls(values.numel())
        series._buffer, series._count = values, values.numel()
        return series

    def __len__(self) -> int:
        return self._count

    def append(self, values: Tensor) -> None:
        """Add float32 values of any shape, in their order."""
        flat = values.reshape(-1)
        end = self._count + flat.numel()
        if self._buffer is None or end > self._buffer.numel():
            self._grow(end, flat.device)
        if self._buffer is not None:
            self._buffer[self._count : end] = flat
        self._count = end

    def _grow(self, needed: int, device: torch.device) -> None:
        grown = torch.empty(max(needed, self._capacity, 2 * self._count), dtype=torch.float32, device=device)
        if self._buffer is not None:
            grown[: self._count] = self._buffer[: self._count]
        self._buffer = grown

    def values(self) -> Tensor:
        """float32 [n], a view that later appends may overwrite."""
        return torch.empty(0) if self._buffer is None else self._buffer[: self._count]

    def replace(self, values: Tensor) -> None:
        """Hold these values instead, in the same buffer."""
        self._count = 0
        self.append(values)


__all__ = ["Series"]
