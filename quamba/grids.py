"""The values that quantized weights can take: what rounding to nearest and GPTQ have in common.

8 bits: w = q s_w. 4 bits with float activations (W4A16): w = q s_g, with s_g for each group of input channels.
4 bits with 8-bit activations (W4A8) has two levels, so that products are of 8-bit integers: the stored factor
f = s_g / s_ch turns a code into the integer clamp(round(q f), -128, 127), and w is that integer times s_ch, the scale
of the output channel (arXiv 2503.22879, after QQQ, arXiv 2406.09904).

Group scales are float16. They are rounded before codes are computed from them: what is stored is what was used.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quamba.granularity import PerTensor, WeightScheme
from quamba.packing import INT4_MAX, INT4_MIN
from quamba.qtypes import MIN_SCALE, QMAX, QMIN, scale_of

_SMALLEST_HALF = 2.0**-24
_LARGEST_HALF = 65504.0


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """The values that the weights of some input channels can take, for each output channel.

    Attributes:
        scale: s_w, s_g or f, float32 [out].
        channel_scale: s_ch, float32 [out], where the grid has two levels.
        qmin: the smallest code.
        qmax: the largest code.
    """

    scale: Tensor
    channel_scale: Tensor | None
    qmin: int
    qmax: int

    def codes(self, weight: Tensor) -> Tensor:
        """clamp(round(w / step)) with the distance of two values as step, float32 [..., out] to float32 [..., out]."""
        step = self.scale if self.channel_scale is None else self.scale * self.channel_scale
        return (weight / step).round_().clamp_(self.qmin, self.qmax)

    def values(self, codes: Tensor) -> Tensor:
        """What the codes stand for, float32 [..., out]."""
        products = codes * self.scale
        if self.channel_scale is None:
            return products
        return products.round_().clamp_(QMIN, QMAX).mul_(self.channel_scale)


def row_grid(weight: Tensor, scheme: WeightScheme, blocks: Sequence[int] | None = None) -> Grid:
    """The 8-bit grid of a weight: s_w = max|w| / 127 over an output channel, or over a block of them.

    Args:
        weight: float32 [out, in].
        scheme: 8 bits, `PerChannel` or `PerTensor`.
        blocks: for `PerTensor`, the numbers of rows with a scale of their own, sum `out`; None: all rows have one.

    Raises:
        ValueError: the blocks do not make up the rows.
    """
    absmax = weight.abs().amax(dim=1)
    if isinstance(scheme.granularity, PerTensor):
        sizes = [len(absmax)] if blocks is None else list(blocks)
        if sum(sizes) != len(absmax):
            raise ValueError(f"blocks of {sizes} rows are {sum(sizes)}, but the weight has {len(absmax)}")
        absmax = torch.cat([part.max().expand(len(part)) for part in torch.split(absmax, sizes)])
    return Grid(scale_of(absmax), None, QMIN, QMAX)


def group_grid(absmax: Tensor, channel_scale: Tensor | None, *, whole_row: bool) -> Grid:
    """The 4-bit grid of one group: s_g = 2 max|w| / 15, codes -8..7.

    Where one group is the whole row the scale is max|w| / 7 with codes -7..7.

    Args:
        absmax: max|w| of the group, float32 [out].
        channel_scale: s_ch float32 [out] for the grid of two levels.
        whole_row: no other group shares the row.
    """
    scale = (absmax / INT4_MAX if whole_row else 2 * absmax / 15).clamp(min=MIN_SCALE)
    if channel_scale is not None:
        scale = scale / channel_scale
    return Grid(stored_half(scale).float(), channel_scale, -INT4_MAX if whole_row else INT4_MIN, INT4_MAX)


def stored_half(scale: Tensor) -> Tensor:
    """A positive scale in float16: neither 0, by which nothing can be divided, nor infinite."""
    return scale.clamp(_SMALLEST_HALF, _LARGEST_HALF).half()


def groups_of(scheme: WeightScheme, in_features: int) -> list[slice]:
    """The input channels of each grid: those of a group, or all."""
    size = scheme.group_size or in_features
    return [slice(start, min(start + size, in_features)) for start in range(0, in_features, size)]


def grids_of(
    weight: Tensor, scheme: WeightScheme, channel_scale: Tensor | None, blocks: Sequence[int] | None
) -> list[Grid]:
    """The grids of the groups of a weight float32 [out, in], in order; see `row_grid` and `group_grid`."""
    if scheme.num_bits == 8:
        return [row_grid(weight, scheme, blocks)]
    groups = groups_of(scheme, weight.shape[1])
    return [group_grid(weight[:, s].abs().amax(dim=1), channel_scale, whole_row=len(groups) == 1) for s in groups]


__all__ = ["Grid", "grids_of", "group_grid", "groups_of", "row_grid", "stored_half"]
