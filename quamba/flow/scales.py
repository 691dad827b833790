"""From what a sweep kept to the scales of a layer's tensors where heads are grouped."""

from collections.abc import Mapping

import torch
from torch import Tensor

from quamba.models.config import ModelConfig
from quamba.observers.clipping import Clipping
from quamba.observers.observer import Observer
from quamba.reports import ReorderRanges
from quamba.transforms.grouping import Grouping
from quamba.transforms.ranges import reorder_ranges
from quamba.transforms.reorder import cluster
from quamba.transforms.tables import expand_groups, expand_ssd_groups, group_table, ssd_group_maximum

# Tensors that have a scale for each group of heads and channels; the state apart for each of its columns.
GROUPED_SITES = ("x_conv_out:input", "ssm_state_act:input")
# Tensors that have a scale for each SSD group.
SSD_GROUPED_SITES = ("B_conv_out:input", "C_conv_out:input")


def choose_grouping(observer: Observer, config: ModelConfig) -> Grouping:
    """Order and groups of a layer's heads and channels, from x after the convolution.

    Args:
        observer: of "x_conv_out:input", grouped.
        config: the model's sizes.
    """
    profile, absmax = observer.profile(), observer.column_absmax()
    return cluster(profile, absmax, config.ngroups, config.nheads, config.headdim)


def grouped_clip(op: str, observer: Observer, clipping: Clipping, grouping: Grouping, config: ModelConfig) -> Tensor:
    """The end of each channel's clipping interval, in the new order.

    Args:
        op: one of `GROUPED_SITES` or `SSD_GROUPED_SITES`.
        observer: of that tensor, in the old order.
        clipping: of the layer's percentile tensors; others take their absolute maximum.
        grouping: the layer's.
        config: the model's sizes.

    Returns:
        float32 [E] for x, [H, P, N] for the state, [G N] for B and C.
    """
    absmax = observer.column_absmax()
    if op in SSD_GROUPED_SITES:
        return expand_ssd_groups(ssd_group_maximum(absmax, config.ngroups), config.d_state)
    tail = observer.channel_tail
    columns = _columns(op, config)
    if not clipping.clips or tail is None:
        return group_table(_shaped(absmax, columns, config), grouping)
    # The group of each channel in the old order, where the observer saw it; a state's columns are groups of their own.
    group = torch.empty_like(grouping.group_of_channel)
    group[grouping.channel_order] = grouping.group_of_channel
    groups = grouping.group_count
    if columns is None:
        return expand_groups(tail.clips(group, groups, clipping.percentile_alpha), grouping)
    group = (group[:, None] * columns + torch.arange(columns)).flatten()
    clips = tail.clips(group, groups * columns, clipping.percentile_alpha)
    return expand_groups(clips.view(groups, columns), grouping)


def ranges_of(op: str, observer: Observer, grouping: Grouping, config: ModelConfig) -> ReorderRanges:
    """What grouping and reordering did to one of `GROUPED_SITES`."""
    columns = _columns(op, config)
    low, high = (_shaped(extreme, columns, config) for extreme in observer.column_extremes())
    return reorder_ranges(low, high, grouping)


def in_old_order(table: Tensor, grouping: Grouping) -> Tensor:
    """A table of channels in the new order, [E] or [H, P, N], by the old index: [E] or [E N]."""
    by_channel = table.reshape(len(grouping.channel_order), -1)
    restored = torch.empty_like(by_channel)
    restored[grouping.channel_order.to(table.device)] = by_channel
    return restored.flatten()


def _columns(op: str, config: ModelConfig) -> int | None:
    """How many columns each channel has: those of a state, even if it is only one; None for x, which has none."""
    return None if op == "x_conv_out:input" else config.d_state


def _shaped(values: Tensor, columns: int | None, config: ModelConfig) -> Tensor:
    return values if columns is None else values.view(config.nheads, config.headdim, columns)


def mean_reduction(ranges: Mapping[tuple[int, str], ReorderRanges]) -> tuple[float, float]:
    """Over layers and tensors: the mean reduction of the range in per cent, and that of grouping without reordering."""
    count = max(1, len(ranges))
    found = ranges.values()
    return (
        sum(item.range_reduction_pct for item in found) / count,
        sum(item.range_reduction_grouping_only_pct for item in found) / count,
    )


__all__ = [
    "GROUPED_SITES",
    "SSD_GROUPED_SITES",
    "choose_grouping",
    "grouped_clip",
    "in_old_order",
    "mean_reduction",
    "ranges_of",
]
