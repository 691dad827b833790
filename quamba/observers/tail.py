"""Quantiles of absolute values from the largest elements alone.

The quantile at alpha of n values needs only its upper tail: with rank r = alpha (n - 1) and lo = floor(r) it is
x_lo + (r - lo) (x_{lo+1} - x_lo) on ascending |x|. Selecting the n - lo largest costs a fraction of
a sort and has no limit on n, where `torch.quantile` refuses more than 2^24 elements.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from quamba.observers.documents import Documents
from quamba.observers.select import largest_indices, largest_values
from quamba.observers.series import Series

# torch.quantile's limit. Up to it ranks are computed as torch computes them, in float32, so that results are equal.
_TORCH_LIMIT = 1 << 24


@dataclass(frozen=True, slots=True)
class Rank:
    """Where a quantile lies: between the order statistics lo and lo + 1, at `weight` of the way.

    Attributes:
        lo: index on ascending values, from 0.
        weight: in [0, 1).
        tail: how many of the largest elements are needed: n - lo.
    """

    lo: int
    weight: float
    tail: int

    @classmethod
    @lru_cache(maxsize=4096)
    def of(cls, alpha: float, n: int) -> "Rank":
        """The rank of the quantile at `alpha` in [0, 1] of n >= 1 values."""
        in_float32 = n <= _TORCH_LIMIT
        position = float(torch.tensor(alpha, dtype=torch.float32) * (n - 1)) if in_float32 else alpha * (n - 1)
        lo = min(math.floor(position), n - 1)
        return cls(lo=lo, weight=position - lo, tail=n - lo)

    def value(self, tail: Tensor) -> Tensor:
        """The quantile, from at least `self.tail` largest values in descending order along the last axis."""
        low = tail[..., self.tail - 1]
        if self.tail < 2:
            return low
        return torch.lerp(low, tail[..., self.tail - 2], self.weight)


def abs_quantile(x: Tensor, alpha: float) -> Tensor:
    """The quantile at `alpha` of |x| over all elements, a single float32 value.

    Equal to `torch.quantile(x.abs().flatten(), alpha)` wherever that works (up to 2^24 elements).

    Args:
        x: any shape, at least one element.
        alpha: in (0, 1].

    Raises:
        ValueError: alpha outside (0, 1], or no elements.
    """
    if not 0.0 < alpha <= 1.0:
        raise ValueError(f"alpha must be in (0, 1], not {alpha}")
    if x.numel() == 0:
        raise ValueError("the quantile of no elements is not defined")
    if alpha == 1.0:
        return torch.maximum(x.max(), -x.min()).float()
    rank = Rank.of(alpha, x.numel())
    return rank.value(largest(Documents.of(x.float().reshape(1, -1, 1)), rank.tail)[0])


def largest(documents: Documents, count: int) -> Tensor:
    """The `count` largest absolute values of each document, descending: [d, count].

    Blocks of tokens are compared by their largest element first: an element of the tail lies in one of the `count`
    blocks with the largest maxima, so only those are looked into.

    Args:
        documents: of T tokens and C channels.
        count: 1 <= count <= T C.
    """
    maxima = documents.block_maxima
    d, blocks, channels = maxima.shape
    maxima = maxima.flatten(1)
    if count == 1:
        return maxima.amax(dim=1, keepdim=True)
    if count * 4 > blocks * channels:
        # Most blocks would be candidates: selection from all is cheaper.
        return largest_values(documents.values.flatten(1).abs(), count)
    chosen = largest_indices(maxima, count)
    rows = torch.arange(d, device=chosen.device)[:, None]
    return largest_values(documents.blocks(rows, chosen // channels, chosen % channels).flatten(1), count)


def largest_of_all(documents: Documents, count: int) -> Tensor:
    """The `count` largest absolute values of all documents together, descending: [count]."""
    maxima = documents.block_maxima
    _, blocks, channels = maxima.shape
    if count * 4 > maxima.numel():
        return largest_values(documents.values.flatten().abs(), count)
    chosen = largest_indices(maxima.flatten(), count)
    place = chosen % (blocks * channels)
    found = documents.blocks(chosen // (blocks * channels), place // channels, place % channels)
    return largest_values(found.flatten(), count)


def share_of(share: float, n: int) -> int:
    """How many of n elements are a share of them: at least one."""
    return max(1, min(n, math.ceil(share * n)))


class Tail:
    """The largest absolute values of a whole stream of documents.

    Args:
        size: how many are kept: exact questions about the stream can be answered as far down as this.
        share: keep only what is larger than all but this share of the first document's elements; less work than `size`
            alone asks for, which keeps as many from the beginning of the stream as from all of it. Where documents
            differ, fewer than `size` may be known at the end.
    """

    def __init__(self, size: int, share: float | None = None) -> None:
        self.size = size
        self._share = share
        # Twice the size before a selection: so that each element takes part in few of them.
        self._kept = Series(2 * size)
        # Below this nothing is known, and of what is equal to it not all.
        self._floor = -1.0

    def update(self, documents: Documents) -> None:
        """Look at a stack of documents once."""
        if self._floor < 0.0 and self._share is not None:
            # Of the first document alone: the result must not depend on how documents were batched.
            n = documents.values[0].numel()
            count = share_of(self._share, n)
            self._floor = float(largest(documents.first(), count)[0, -1])
        elif self._floor < 0.0 and self.size < documents.values.numel():
            values = largest_of_all(documents, self.size)
            self._floor = float(values[-1])
            self._kept.append(values)
            return
        maxima = documents.block_maxima
        found = (maxima > self._floor).nonzero()
        if len(found) * 4 > maxima.numel():
            values = documents.values.flatten().abs()
        else:
            values = documents.blocks(*found.unbind(1)).flatten()
        values = values[values > self._floor]
        if values.numel() > self.size:
            values = self._cut(values)
        if len(self._kept) + values.numel() > 2 * self.size:
            self._shrink()
        self._kept.append(values)

    @property
    def share(self) -> float | None:
        """See the class."""
        return self._share

    def load(self, values: Tensor, floor: float) -> None:
        """Take what others have found: all elements of the stream above the `floor`."""
        self._kept, self._floor = Series.of(values), floor

    def _cut(self, values: Tensor) -> Tensor:
        values = largest_values(values, self.size)
        self._floor = float(values[-1])
        return values

    def _shrink(self) -> None:
        if len(self._kept) > self.size:
            self._kept.replace(self._cut(self._kept.values()))

    def descending(self, count: int) -> Tensor:
        """The `count` <= size largest, descending."""
        self._shrink()
        return largest_values(self._kept.values(), count)

    def above(self, threshold: float) -> Tensor | None:
        """The elements of the stream above `threshold`; None where the tail does not reach that far down."""
        self._shrink()
        if threshold < self._floor:
            return None
        return self._kept.values()[self._kept.values() > threshold]


__all__ = ["Rank", "Tail", "abs_quantile", "largest", "largest_of_all", "share_of"]
