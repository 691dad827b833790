"""A fixed sample of a stream's elements, for statistics that need the values themselves."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from quamba.observers.documents import Documents
from quamba.observers.series import Series

# Elements taken of each document: 2^19 of 512 documents.
PER_DOCUMENT = 1024


class Sample:
    """The same positions of every document of one length, spread evenly over tokens and channels.

    Positions are multiples of about n / golden ratio, modulo n: a low-discrepancy sequence that falls into step with
    no number of channels. The sample depends on the documents alone, not on how they were batched.

    Args:
        documents: how many are expected.
    """

    def __init__(self, documents: int) -> None:
        self._values = Series(documents * PER_DOCUMENT)
        self._channels: list[tuple[int, Tensor]] = []

    def update(self, documents: Documents) -> None:
        """Take from a stack of documents."""
        _, tokens, channels = documents.shape
        token, channel = _sample_coordinates(tokens, channels, documents.values.device)
        self._values.append(documents.values[:, token, channel])
        self._channels.append((len(documents.values), channel))

    def channels(self) -> Tensor:
        """The channel of each value, int64 [n]."""
        return torch.cat([channel.repeat(count) for count, channel in self._channels])

    def values(self) -> Tensor:
        """float32 [n], in the order of the documents."""
        return self._values.values()


@lru_cache(maxsize=256)
def _sample_coordinates(tokens: int, channels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    positions = sample_positions(tokens * channels, device)
    return positions // channels, positions % channels


def sample_positions(n: int, device: torch.device) -> Tensor:
    """int64 [min(n, 1024)], all different, below n."""
    if n <= PER_DOCUMENT:
        return torch.arange(n, device=device)
    step = max(1, round(n * (math.sqrt(5) - 1) / 2))
    while math.gcd(step, n) != 1:
        step += 1
    return torch.arange(PER_DOCUMENT, device=device) * step % n


__all__ = ["PER_DOCUMENT", "Sample", "sample_positions"]
