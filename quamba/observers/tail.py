"""Quantiles of absolute values from the largest elements alone.

The quantile at alpha of n values needs only its upper tail: with rank r = alpha (n - 1) and lo = floor(r) it is
x_lo + (r - lo) (x_{lo+1} - x_lo) on ascending |x|. Selecting the n - lo largest costs a fraction of
a sort and has no limit on n, where `torch.quantile` refuses more than 2^24 elements.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from quamba.observers.series import Series

# torch.quantile's limit. Up to it ranks are computed as torch computes them, in float32, so that results are equal.
_TORCH_LIMIT = 1 << 24
# Tokens in a block whose largest element stands for it when the tail's elements are searched.
_BLOCK = 32


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
    def of(cls, alpha: float, n: int) -> "Rank":
        """The rank of the quantile at `alpha` in [0, 1] of n >= 1 values."""
        in_float32 = n <= _TORCH_LIMIT
        position = float(torch.tensor(alpha, dtype=torch.float32) * (n - 1)) if in_float32 else alpha * (n - 1)
        lo = min(math.floor(position), n - 1)
        return cls(lo=lo, weight=position - lo, tail=n - lo)

    def value(self, tail: Tensor) -> Tensor:
        """The quantile, from the `self.tail` largest values in descending order along the last axis."""
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
    return rank.value(largest(x.float().reshape(1, -1, 1), rank.tail)[0])


def largest(documents: Tensor, count: int) -> Tensor:
    """The `count` largest absolute values of each document, descending: [d, count].

    Blocks of tokens are compared by their largest element first: an element of the tail lies in one of the `count`
    blocks with the largest maxima, so only those are looked into.

    Args:
        documents: float32 [d, T, C].
        count: 1 <= count <= T C.
    """
    tokens, channels = documents.shape[1:]
    if count == 1:
        return documents.flatten(1).abs().amax(dim=1, keepdim=True)
    blocks = -(-tokens // _BLOCK) * channels
    # Where most blocks would be candidates, or columns are too few to reduce well, selection from all is cheaper.
    if count * 4 > blocks or tokens < 2 * _BLOCK:
        return _select(documents.flatten(1).abs(), count)
    maxima = block_maxima(documents)
    chosen = torch.topk(maxima.flatten(1), count, dim=1, sorted=False).indices
    return _select(gather_blocks(documents, chosen), count)


def _select(values: Tensor, count: int) -> Tensor:
    if count * 2 > values.shape[1]:
        return torch.sort(values, dim=1, descending=True).values[:, :count]
    return torch.topk(values, count, dim=1).values


def block_maxima(documents: Tensor) -> Tensor:
    """The largest absolute value of each channel in each block of tokens: [d, ceil(T / 32), C]."""
    d, tokens, channels = documents.shape
    whole = tokens // _BLOCK
    parts = []
    if whole:
        blocks = documents[:, : whole * _BLOCK].reshape(d, whole, _BLOCK, channels)
        parts.append(torch.maximum(blocks.amax(dim=2), blocks.amin(dim=2).neg_()))
    if tokens % _BLOCK:
        rest = documents[:, whole * _BLOCK :]
        parts.append(torch.maximum(rest.amax(dim=1), rest.amin(dim=1).neg_())[:, None])
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def gather_blocks(documents: Tensor, chosen: Tensor) -> Tensor:
    """The absolute values in the chosen blocks: [d, count * 32]; -1 stands where a block ends early.

    Args:
        documents: float32 [d, T, C].
        chosen: int64 [d, count], block * C + channel.
    """
    d, tokens, channels = documents.shape
    block, channel = chosen // channels, chosen % channels
    token = (block * _BLOCK)[..., None] + torch.arange(_BLOCK, device=documents.device)  # [d, count, 32]
    row = torch.arange(d, device=documents.device)[:, None, None]
    values = documents[row, token.clamp(max=tokens - 1), channel[..., None]].abs_()
    if tokens % _BLOCK:
        values.masked_fill_(token >= tokens, -1.0)
    return values.flatten(1)


class Tail:
    """The largest absolute values of a whole stream of documents.

    Args:
        size: how many are kept: exact questions about the stream can be answered as far down as this.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        # Twice the size before a selection: so that each element takes part in few of them.
        self._kept = Series(2 * size)
        # Nothing at or below this belongs to the `size` largest seen so far.
        self._floor = -1.0

    def update(self, documents: Tensor) -> None:
        """Look at documents [d, T, C] once."""
        tokens, channels = documents.shape[1:]
        if self._floor < 0 and documents.numel() >= self.size:
            # The first batch alone says below what nothing will be among the largest of all.
            values = largest(documents.reshape(1, -1, channels), self.size)[0]
            self._floor = float(values[-1])
            self._kept.append(values)
            return
        if tokens >= 2 * _BLOCK and self._floor >= 0:
            maxima = block_maxima(documents)
            found = (maxima.flatten(1) > self._floor).nonzero()
            if len(found) * _BLOCK * 4 > documents.numel():
                values = documents.flatten().abs()
            else:
                # Each found block as a document of its own choosing: one gather for all.
                block, channel = found[:, 1] // channels, found[:, 1] % channels
                token = (block * _BLOCK)[:, None] + torch.arange(_BLOCK, device=documents.device)
                values = documents[found[:, :1], token.clamp(max=tokens - 1), channel[:, None]].abs_()
                values = values[token < tokens]
        else:
            values = documents.flatten().abs()
        values = values[values > self._floor]
        if values.numel() > self.size:
            values = torch.topk(values, self.size, sorted=False).values
        if len(self._kept) + values.numel() > 2 * self.size:
            self._shrink()
        self._kept.append(values)

    def _shrink(self) -> None:
        if len(self._kept) > self.size:
            values = torch.topk(self._kept.values(), self.size, sorted=False).values
            self._floor = float(values.min())
            self._kept.replace(values)

    def descending(self, count: int) -> Tensor:
        """The `count` <= size largest, descending."""
        self._shrink()
        return torch.topk(self._kept.values(), count).values

    def above(self, threshold: float) -> Tensor | None:
        """The elements of the stream above `threshold`; None where the tail does not reach that far down."""
        self._shrink()
        if threshold < self._floor:
            return None
        return self._kept.values()[self._kept.values() > threshold]


__all__ = ["Rank", "Tail", "abs_quantile", "block_maxima", "gather_blocks", "largest"]
