"""A stack of documents of equal length, reduced once for everything that is kept of it.

One pass over a wide tensor serves all tensors that lie side by side in it (z, x, B, C and dt are columns of in_proj's
output): the extremes of each column in each block of tokens. Per-channel ranges, extremes of the whole, and where the
largest elements can be, all follow from these; they are a thirtieth of the data.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

# Tokens in a block.
BLOCK = 32


@dataclass(frozen=True)
class Documents:
    """d documents of T tokens and C channels, with their blocks' extremes.

    Attributes:
        values: float32 [d, T, C].
        block_high: float32 [d, ceil(T / 32), C], the largest value of each channel in each block of tokens.
        block_low: the smallest.
        high: float32 [C], the largest value of each channel.
        low: the smallest.
    """

    values: Tensor
    block_high: Tensor
    block_low: Tensor
    high: Tensor
    low: Tensor

    @classmethod
    def of(cls, values: Tensor) -> "Documents":
        """Reduce values, float32 [d, T, C] of at least one token, once."""
        high, low = _block_extremes(values)
        return cls(values, high, low, high.amax(dim=(0, 1)), low.amin(dim=(0, 1)))

    @property
    def shape(self) -> tuple[int, int, int]:
        """d, T, C."""
        d, tokens, channels = self.values.shape
        return d, tokens, channels

    def first(self) -> "Documents":
        """The first document alone."""
        high, low = self.block_high[:1], self.block_low[:1]
        return Documents(self.values[:1], high, low, high.amax(dim=(0, 1)), low.amin(dim=(0, 1)))

    def columns(self, start: int, width: int) -> "Documents":
        """The tensor that occupies these columns, as views."""
        return Documents(
            self.values.narrow(2, start, width),
            self.block_high.narrow(2, start, width),
            self.block_low.narrow(2, start, width),
            self.high.narrow(0, start, width),
            self.low.narrow(0, start, width),
        )

    def sums(self) -> Tensor:
        """The sum of each document, [d]."""
        return self.values.sum(dim=2).sum(dim=1)

    def squares(self) -> Tensor:
        """The sum of x^2 of each document, [d]."""
        # A norm along the contiguous axis takes a fraction of what `square` with its buffer does on a CPU.
        norms: Tensor = torch.linalg.vector_norm(self.values, dim=2)
        return norms.square_().sum(dim=1)

    @cached_property
    def block_maxima(self) -> Tensor:
        """The largest absolute value of each channel in each block: [d, ceil(T / 32), C]."""
        return torch.maximum(self.block_high, -self.block_low)

    def blocks(self, document: Tensor, block: Tensor, channel: Tensor) -> Tensor:
        """The absolute values in chosen blocks, [..., min(32, T)]; -1 stands where a block ends early.

        Args:
            document: int64, broadcastable to `block`.
            block: int64 [...].
            channel: int64 [...].
        """
        tokens = self.values.shape[1]
        offsets = torch.arange(min(BLOCK, tokens), device=block.device)
        token = (block * BLOCK)[..., None] + offsets
        values = self.at(document[..., None], token.clamp(max=tokens - 1), channel[..., None]).abs_()
        if tokens % BLOCK and tokens > BLOCK:
            values.masked_fill_(token >= tokens, -1.0)
        return values

    def at(self, document: Tensor, token: Tensor, channel: Tensor) -> Tensor:
        """The values at these places, int64 and broadcastable to each other."""
        return self.values[document, token, channel]


def _block_extremes(values: Tensor) -> tuple[Tensor, Tensor]:
    tokens = values.shape[1]
    whole = tokens // BLOCK
    high, low = [], []
    if whole:
        blocks = values[:, : whole * BLOCK].view(len(values), whole, BLOCK, -1)
        high.append(blocks.amax(dim=2))
        low.append(blocks.amin(dim=2))
    if tokens % BLOCK:
        rest = values[:, whole * BLOCK :]
        high.append(rest.amax(dim=1, keepdim=True))
        low.append(rest.amin(dim=1, keepdim=True))
    return (high[0], low[0]) if len(high) == 1 else (torch.cat(high, dim=1), torch.cat(low, dim=1))


def stacks(values: Tensor, counts: Tensor | None) -> Iterator[Tensor]:
    """The real entries of a batch as stacks [d, T, C] of documents of equal length, in order.

    Args:
        values: float32 [Bt, T, ...].
        counts: int64 [Bt], how many of each row's T entries are real; None: all.
    """
    yield from stacks_of(values, None if counts is None else counts.tolist())


def stacks_of(values: Tensor, lengths: Sequence[int] | None) -> Iterator[Tensor]:
    """As `stacks`, of lengths that the host knows."""
    flat = values.flatten(2) if values.ndim > 3 else values
    if lengths is None:
        yield flat
        return
    start = 0
    while start < len(lengths):
        end = start + 1
        while end < len(lengths) and lengths[end] == lengths[start]:
            end += 1
        yield flat[start:end, : lengths[start]]
        start = end


__all__ = ["BLOCK", "Documents", "stacks", "stacks_of"]
