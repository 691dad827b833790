"""What grouping and reordering do to ranges: maxima of what one calibration sweep keeps for each channel.

A permutation only relabels channels, so ranges in any order and any groups follow from these, exactly.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from quamba.errors import ModelError
from quamba.transforms.grouping import Grouping
from quamba.transforms.tables import group_maximum

# What a record says of its numbers.
DEFINITION = (
    "range = the absolute maximum that is put on code 127; before: of the whole tensor, "
    "after: mean over groups (SSD group x head group x channel group, for states x column) weighted by their channels"
)


@dataclass(frozen=True, slots=True)
class ReorderRange:
    """The signed extremes of a tensor, and its symmetric clipping range; of groups, the means weighted by channels.

    Attributes:
        min: the smallest value.
        max: the largest value.
        range: scale * 127.
    """

    min: float
    max: float
    range: float

    @property
    def span(self) -> float:
        """max - min."""
        return self.max - self.min


@dataclass(frozen=True, slots=True)
class ReorderRanges:
    """One tensor's ranges without groups, with them, and with groups of the same sizes in the original order.

    Attributes:
        before: of the whole tensor.
        after: of the groups.
        control: of the groups, nothing reordered.
        range_reduction_rms: 1 - sqrt(sum n r^2) / (sqrt(sum n) before.range), which follows the rounding noise.
        n_groups: groups with a scale each.
    """

    before: ReorderRange
    after: ReorderRange
    control: ReorderRange
    range_reduction_rms: float
    n_groups: int

    @property
    def range_reduction(self) -> float:
        """(before.range - after.range) / before.range; 0 for a tensor of zeros."""
        return _reduction(self.before.range, self.after.range)

    @property
    def range_reduction_pct(self) -> float:
        """The same in per cent."""
        return 100.0 * self.range_reduction

    @property
    def range_reduction_grouping_only(self) -> float:
        """What the number of scales alone is worth: the reduction of the control."""
        return _reduction(self.before.range, self.control.range)

    @property
    def range_reduction_grouping_only_pct(self) -> float:
        """The same in per cent."""
        return 100.0 * self.range_reduction_grouping_only

    @property
    def range_reduction_reorder_only(self) -> float:
        """What sorting and clustering alone are worth: (control.range - after.range) / control.range."""
        return _reduction(self.control.range, self.after.range)


def _reduction(before: float, after: float) -> float:
    return (before - after) / before if before > 0 else 0.0


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


__all__ = ["DEFINITION", "ReorderRange", "ReorderRanges", "reorder_ranges"]
