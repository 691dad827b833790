"""Weights as codes and scales, and rounding to nearest; `quamba.grids` says what the codes stand for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from quamba.errors import ModelError
from quamba.granularity import WeightScheme
from quamba.grids import Grid, grids_of, groups_of
from quamba.qtypes import QMAX, QMIN, scale_of


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedWeight:
    """A weight [out, in] as codes and scales, however they were found.

    Attributes:
        scheme: what they mean.
        codes: int8 [out, in].
        weight_scale: s_w or s_ch, float32 [out]; None for W4A16.
        group_scale: s_g (W4A16) or f = s_g / s_ch (W4A8), float16 [out, groups]; None for 8 bits.
    """

    scheme: WeightScheme
    codes: Tensor
    weight_scale: Tensor | None
    group_scale: Tensor | None

    def operand(self) -> Tensor:
        """What activations are multiplied with: int8 [out, in], or float32 [out, in] where they stay float."""
        if self.group_scale is None:
            return self.codes
        columns = self.codes.shape[1]
        size = min(self.scheme.group_size or columns, columns)
        spread = self.group_scale.float().repeat_interleave(size, dim=1)[:, :columns]
        products = spread.mul_(self.codes)
        if self.weight_scale is None:
            return products.contiguous()
        return products.round_().clamp_(QMIN, QMAX).to(torch.int8)

    def dequantize(self) -> Tensor:
        """The values, float32 [out, in]."""
        operand = self.operand()
        return operand if self.weight_scale is None else operand * self.weight_scale[:, None]


def assemble(scheme: WeightScheme, codes: Tensor, grids: Sequence[Grid]) -> QuantizedWeight:
    """Codes int8 [out, in] with the grids of their groups, in order; 8 bits have one grid."""
    if scheme.num_bits == 8:
        return QuantizedWeight(scheme, codes, grids[0].scale, None)
    # Exact: the scales of groups have been rounded to float16 already.
    group_scale = torch.stack([grid.scale.half() for grid in grids], dim=1)
    return QuantizedWeight(scheme, codes, grids[0].channel_scale, group_scale)


def quantize_weight(weight: Tensor, scheme: WeightScheme, *, blocks: Sequence[int] | None = None) -> QuantizedWeight:
    """Round each weight to the nearest value of its grid, half to even.

    For W4A8 s_ch = max|w'| / 127, where w' is the row as W4A16 would have it.

    Args:
        weight: float [out, in].
        scheme: what to make of it.
        blocks: see `quamba.grids.row_grid`; schemes with finer scales ignore it.

    Raises:
        ModelError: the weight holds NaN or infinity.
    """
    weight = finite(weight)
    channel_scale = None
    if scheme.has_two_levels:
        in_float = quantize_weight(weight, replace(scheme, activation_bits=16))
        channel_scale = scale_of(in_float.dequantize().abs().amax(dim=1))
    grids = grids_of(weight, scheme, channel_scale, blocks)
    codes = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    for columns, grid in zip(groups_of(scheme, weight.shape[1]), grids, strict=True):
        codes[:, columns] = grid.codes(weight[:, columns].t()).t()
    return assemble(scheme, codes, grids)


def finite(weight: Tensor) -> Tensor:
    """The weight in float32.

    Raises:
        ModelError: it holds NaN or infinity.
    """
    wrong = int((~torch.isfinite(weight)).sum())
    if wrong:
        raise ModelError(
            f"a weight {list(weight.shape)} holds {wrong} values that are not finite: check the checkpoint"
        )
    return weight.float()


__all__ = ["QuantizedWeight", "assemble", "finite", "quantize_weight"]
