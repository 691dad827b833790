"""Which heads and channels of a Mamba-2 layer share a scale, and the order in which they lie side by side."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from quamba.errors import ModelError

_FIELDS = ("head_order", "channel_order", "head_ends", "channel_ends")


@dataclass(frozen=True, slots=True, eq=False)
class Grouping:
    """One layer's order and groups: in each SSD group m head groups, each with k channel groups (arXiv 2503.22879).

    Head group i of SSD group g is its heads head_ends[g, i - 1] .. head_ends[g, i] in the new order, channel group j of
    it the channels channel_ends[g, i, j - 1] .. channel_ends[g, i, j] of each of those heads. Orders hold the old index
    at each new position; heads never leave their SSD group, channels never their head. Groups are numbered
    (g m + i) k + j. All tensors lie on the CPU.

    Attributes:
        head_order: int64 [H].
        channel_order: int64 [E].
        head_ends: int64 [G, m], cumulative ends in heads, the last of each row H / G.
        channel_ends: int64 [G, m, k], cumulative ends in channels, the last of each row P.

    Raises:
        ValueError: the tensors are no orders and ends of one layer.
    """

    head_order: Tensor
    channel_order: Tensor
    head_ends: Tensor
    channel_ends: Tensor

    def __post_init__(self) -> None:
        dims = {"head_order": 1, "channel_order": 1, "head_ends": 2, "channel_ends": 3}
        for name, ndim in dims.items():
            tensor: Tensor = getattr(self, name)
            if tensor.ndim != ndim or tensor.dtype != torch.int64 or tensor.numel() == 0:
                raise ValueError(f"{name} must be int64 of {ndim} axes, not {tensor.dtype} {list(tensor.shape)}")
        heads, channels = len(self.head_order), len(self.channel_order)
        if heads % self.ngroups or channels % heads:
            raise ValueError(f"{channels} channels of {heads} heads do not divide into {self.ngroups} SSD groups")
        if self.channel_ends.shape[:2] != self.head_ends.shape:
            raise ValueError(
                f"channel_ends {list(self.channel_ends.shape)} do not belong to head_ends {list(self.head_ends.shape)}"
            )
        _check_order("head_order", self.head_order.view(self.ngroups, -1), torch.arange(self.ngroups))
        _check_order("channel_order", self.channel_order.view(heads, -1), self.head_order)
        _check_ends("head_ends", self.head_ends, heads // self.ngroups)
        _check_ends("channel_ends", self.channel_ends, self.headdim)

    @property
    def ngroups(self) -> int:
        """G, the SSD groups."""
        return self.head_ends.shape[0]

    @property
    def headdim(self) -> int:
        """P."""
        return len(self.channel_order) // len(self.head_order)

    @property
    def group_count(self) -> int:
        """G m k, the groups that have a scale each."""
        return self.channel_ends.numel()

    @property
    def group_of_channel(self) -> Tensor:
        """The group of each channel in the new order, int64 [E]: the table that gives each channel its scale."""
        G, m, k = self.channel_ends.shape
        head = torch.arange(len(self.head_order) // G)
        head_group = (head[None, :, None] >= self.head_ends[:, None, :]).sum(-1)  # [G, H / G]
        ends = self.channel_ends[torch.arange(G)[:, None], head_group]  # [G, H / G, k]
        channel_group = (torch.arange(self.headdim)[:, None] >= ends[:, :, None, :]).sum(-1)  # [G, H / G, P]
        first = (torch.arange(G)[:, None] * m + head_group) * k
        return (first[:, :, None] + channel_group).flatten()

    @property
    def channels_per_group(self) -> Tensor:
        """How many channels each group has, int64 [G m k]."""
        return torch.bincount(self.group_of_channel, minlength=self.group_count)

    def in_original_order(self) -> "Grouping":
        """The control: groups of the same sizes over heads and channels left where they were."""
        heads, channels = torch.arange(len(self.head_order)), torch.arange(len(self.channel_order))
        return replace(self, head_order=heads, channel_order=channels)

    def to_lists(self) -> dict[str, Any]:
        """The four fields as nested lists of whole numbers, for a `quantization_config`."""
        return {name: getattr(self, name).tolist() for name in _FIELDS}

    @classmethod
    def from_lists(cls, values: object) -> "Grouping":
        """The inverse of `to_lists`.

        Raises:
            ModelError: the lists describe no grouping.
        """
        if not isinstance(values, Mapping) or set(values) != set(_FIELDS):
            raise ModelError(f"a stored head grouping has the keys {', '.join(_FIELDS)}; quantize the model again")
        try:
            return cls(**{name: torch.tensor(values[name]) for name in _FIELDS})
        except (TypeError, ValueError, RuntimeError) as error:
            raise ModelError(f"the stored head grouping is damaged ({error}); quantize the model again") from None


def _check_order(name: str, order: Tensor, owner: Tensor) -> None:
    """Row i of order [n, size] must hold the indices owner[i] size .. (owner[i] + 1) size, each once."""
    size = order.shape[1]
    wanted = owner[:, None] * size + torch.arange(size)
    if not torch.equal(order.sort(dim=1).values, wanted):
        wrong = int((order.sort(dim=1).values != wanted).any(dim=1).nonzero()[0])
        raise ValueError(
            f"{name}: positions {wrong * size} to {(wrong + 1) * size - 1} do not permute their own indices"
        )


def _check_ends(name: str, ends: Tensor, total: int) -> None:
    sizes = ends.diff(dim=-1, prepend=torch.zeros_like(ends[..., :1]))
    if (sizes < 1).any() or (ends[..., -1] != total).any():
        raise ValueError(f"{name} must rise to {total} in each group, not {ends.tolist()}")


__all__ = ["Grouping"]
