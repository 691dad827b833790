"""What grouping and reordering do to ranges: maxima of what one calibration sweep keeps for each channel.

A permutation only relabels channels, so ranges in any order and any groups follow from these, exactly.
"""

import math

import torch
from torch import Tensor

from quamba.errors import ModelError
from quamba.reports import ReorderRange, ReorderRanges
from quamba.transforms.grouping import Grouping
from quamba.transforms.tables import group_maximum


def reorder_ranges(minimum: Tensor, maximum: Tensor, grouping: Grouping) -> ReorderRanges:
    """The ranges before and after, from the signed extremes of each channel.

    Args:
        minimum: float [E] or [H, P, N], original order.
        maximum: the same of the largest values.
        grouping: the layer's.

    Raises:
        ModelError: an extreme is NaN or infinite.
        ValueError: the shapes do not belong to the grouping.
    """
    wrong = int((~(minimum.isfinite() & maximum.isfinite())).sum())
    if wrong:
        raise ModelError(f"{wrong} of {minimum.numel()} activation ranges are not finite: check the checkpoint")
    low, high = float(minimum.min()), float(maximum.max())
    before = ReorderRange(low, high, max(abs(low), abs(high)))
    after, rms = _grouped(minimum, maximum, grouping, before.range)
    control, _ = _grouped(minimum, maximum, grouping.in_original_order(), before.range)
    columns = minimum.numel() // len(grouping.channel_order)
    reduction_rms = 1.0 - rms / before.range if before.range > 0 else 0.0
    return ReorderRanges(before, after, control, reduction_rms, grouping.group_count * columns)


def _grouped(minimum: Tensor, maximum: Tensor, grouping: Grouping, largest: float) -> tuple[ReorderRange, float]:
    """The weighted means over groups, and the weighted root mean square of their ranges."""
    high = group_maximum(maximum.double(), grouping)
    low = -group_maximum(-minimum.double(), grouping)
    weight = (grouping.channels_per_group.double() / len(grouping.channel_order)).to(high.device)

    def mean(values: Tensor) -> float:
        return float(weight @ values.reshape(grouping.group_count, -1).mean(dim=1))

    ranges = torch.maximum(low.abs(), high.abs())
    rms = math.sqrt(mean(ranges.square()))
    # Means of numbers that are no larger than `largest`; rounding must not make them so.
    return ReorderRange(mean(low), mean(high), min(mean(ranges), largest)), min(rms, largest)


__all__ = ["reorder_ranges"]
