"""Observers of the tensors that lie side by side in one, which is reduced once for all of them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from quamba.observers.documents import Documents, stacks
from quamba.observers.observer import Observer


class Station:
    """Watches one wide tensor for the observers of its parts.

    Args:
        observers: of the parts, in the order of their columns, and how many columns each has.
    """

    def __init__(self, observers: Mapping[Observer, int]) -> None:
        self._observers = dict(observers)
        self._extremes: tuple[Tensor, Tensor] | None = None

    def update(self, values: Tensor, counts: Tensor | None) -> None:
        """Look at a batch once.

        Args:
            values: float32 [Bt, T, ...], the last axes as wide as all parts together.
            counts: int64 [Bt], how many of each row's T entries are real; None: all.
        """
        for stack in stacks(values, counts):
            documents = Documents.of(stack)
            self._update_extremes(documents)
            start = 0
            for observer, width in self._observers.items():
                if observer.needs_values:
                    observer.update(documents.columns(start, width))
                else:
                    observer.count += stack.shape[0] * stack.shape[1] * width
                start += width

    def _update_extremes(self, documents: Documents) -> None:
        if self._extremes is not None:
            low, high = self._extremes
            torch.minimum(low, documents.low, out=low)
            torch.maximum(high, documents.high, out=high)
            return
        low, high = self._extremes = documents.low.clone(), documents.high.clone()
        start = 0
        for observer, width in self._observers.items():
            # Views: what is brought up to date here is so there.
            observer.set_extremes(low.narrow(0, start, width), high.narrow(0, start, width))
            start += width


__all__ = ["Station"]
