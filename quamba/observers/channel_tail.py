"""The largest absolute values of each channel: quantiles of any groups of channels, chosen after the sweep."""

import math

import torch
from torch import Tensor

from quamba.observers.documents import Documents
from quamba.observers.tail import Rank

# A group's tail is kept whole as long as no channel has more than so many times its share of it.
_MARGIN = 16


class ChannelTail:
    """Of each channel the largest values of a stream of documents.

    Args:
        alpha: the smallest quantile that will be asked for, in (0, 1).
        total: tokens that the stream will bring.
    """

    def __init__(self, alpha: float, total: int) -> None:
        self._rows = min(total, math.ceil(_MARGIN * (1.0 - alpha) * total) + 1)
        self._kept: Tensor | None = None
        self._count = 0

    def update(self, documents: Documents) -> None:
        """Look at a stack of documents once."""
        values = documents.values.flatten(0, 1).abs()
        self._count += len(values)
        if self._kept is not None:
            values = torch.cat([self._kept, values])
        rows = min(self._rows, len(values))
        self._kept = torch.topk(values, rows, dim=0).values

    def clips(self, group: Tensor, groups: int, alpha: float) -> Tensor:
        """The quantile at `alpha` of |x| over all values of each group of channels, float32 [groups].

        Exact as long as no channel holds more than 16 times its share of its group's tail; beyond that the smallest
        value that was kept of such a channel stands for it: less is clipped than asked for.

        Args:
            group: int64 [C], the group of each channel; every group has one.
            groups: how many there are.
            alpha: not below the one that the tail was made for.

        Raises:
            ValueError: nothing was seen.
        """
        kept = self._kept
        if kept is None:
            raise ValueError("the observer has seen nothing: no calibration documents?")
        whole = len(kept) == self._count
        clips = kept.new_empty(groups)
        for number, channels in enumerate(_members(group, groups)):
            values = kept[:, channels.to(kept.device)]
            rank = Rank.of(alpha, self._count * values.shape[1])
            top = torch.topk(values.flatten(), min(rank.tail, values.numel())).values
            clip = rank.value(top) if rank.tail <= len(top) else top[-1]
            if not whole:
                # Below a channel's last kept value nothing is known of it.
                clip = torch.maximum(clip, values[-1].amax())
            clips[number] = clip
        return clips


def _members(group: Tensor, groups: int) -> list[Tensor]:
    order = group.argsort(stable=True)
    return list(order.split(group.bincount(minlength=groups).tolist()))  # type: ignore[no-untyped-call]


__all__ = ["ChannelTail"]
