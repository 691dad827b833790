"""Maxima of groups, and values of groups spread into the tables that a quantizer reads.

Values by channel are [E] (x after the convolution) or [H, P, N] (the state, apart for each of its N columns).
"""

import math

from torch import Tensor

from quamba.transforms.grouping import Grouping


def group_maximum(values: Tensor, grouping: Grouping) -> Tensor:
    """The largest value in each group.

    Args:
        values: float [E] or [H, P, N], original order.
        grouping: the layer's.

    Returns:
        [G m k] or [G m k, N].

    Raises:
        ValueError: the shape does not belong to the grouping.
    """
    heads, channels = len(grouping.head_order), len(grouping.channel_order)
    if values.shape != (channels,) and (values.ndim != 3 or values.shape[:2] != (heads, channels // heads)):
        raise ValueError(
            f"ranges for {channels} channels in {heads} heads are [{channels}] or [{heads}, {channels // heads}, N], "
            f"not {list(values.shape)}"
        )
    by_channel = values.reshape(channels, -1)[grouping.channel_order.to(values.device)]
    group = grouping.group_of_channel.to(values.device)[:, None].expand_as(by_channel)
    out = by_channel.new_full((grouping.group_count, by_channel.shape[1]), -math.inf)
    out.scatter_reduce_(0, group, by_channel, "amax")
    return out.flatten() if values.ndim == 1 else out


def expand_groups(values: Tensor, grouping: Grouping) -> Tensor:
    """The table of a value for each group (maxima, clips, scales) spread over its channels, in the new order.

    Args:
        values: [G m k], or [G m k, N] of states.
        grouping: the layer's.

    Returns:
        [E], or [H, P, N].

    Raises:
        ValueError: the values are not one a group.
    """
    if values.ndim not in (1, 2) or len(values) != grouping.group_count:
        raise ValueError(f"a grouping of {grouping.group_count} groups has no use for values {list(values.shape)}")
    table = values[grouping.group_of_channel.to(values.device)]
    return table if values.ndim == 1 else table.view(len(grouping.head_order), grouping.headdim, -1)


def group_table(absmax: Tensor, grouping: Grouping) -> Tensor:
    """Each channel's range as the quantizer uses it: the absolute maximum of its group.

    Args:
        absmax: float [E] of x or [H, P, N] of states, original order.
        grouping: the layer's.

    Returns:
        The same shape, in the new order.
    """
    return expand_groups(group_maximum(absmax, grouping), grouping)


def ssd_group_maximum(absmax: Tensor, ngroups: int) -> Tensor:
    """The absolute maximum of each SSD group of B or C, float [G] from [G N]."""
    return absmax.view(ngroups, -1).amax(dim=1)


def expand_ssd_groups(values: Tensor, d_state: int) -> Tensor:
    """A value for each SSD group (maxima, clips, scales) spread over its N channels of B or C: [G] to [G N]."""
    return values.repeat_interleave(d_state)


__all__ = ["expand_groups", "expand_ssd_groups", "group_maximum", "group_table", "ssd_group_maximum"]
