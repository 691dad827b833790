"""Sort and cluster: Mamba-2's heads and channels of like ranges side by side (arXiv 2503.22879)."""

import torch
from torch import Tensor, nn

from quamba.errors import ModelError, RecipeError
from quamba.nn.conv import CausalConv1d
from quamba.nn.linear import Linear
from quamba.nn.mamba2 import Mamba2Mixer, PlainGate
from quamba.nn.norm import GatedRMSNorm
from quamba.nn.parameter import Parameter
from quamba.transforms.clustering import segment, ward
from quamba.transforms.grouping import Grouping

# m head groups in an SSD group, k channel groups in a head group (algorithm 5.2).
HEAD_GROUPS, CHANNEL_GROUPS = 4, 4


def cluster(
    statistic: Tensor,
    absmax: Tensor,
    G: int,
    H: int,
    P: int,
    head_groups: int = HEAD_GROUPS,
    channel_groups: int = CHANNEL_GROUPS,
) -> Grouping:
    """Choose order and groups of one layer's x after the convolution.

    In each SSD group: each head's channels are sorted by the statistic; heads whose sorted profiles are alike (rows of
    unit norm, Ward's clustering) come together; the ranks of each head group are cut where sum n_group range_group^2,
    the rounding noise that scales of these groups leave, is least.

    Args:
        statistic: float [E], max over documents of the mean over tokens of |x|.
        absmax: float [E], the largest |x|.
        G: SSD groups.
        H: heads.
        P: channels of a head.
        head_groups: m; as many as an SSD group has heads, where it has fewer.
        channel_groups: k; as many as a head has channels, where it has fewer.

    Raises:
        ModelError: the statistics hold NaN or infinity.
        RecipeError: less than one group is asked for.
        ValueError: the shapes do not belong together.
    """
    if head_groups < 1 or channel_groups < 1:
        raise RecipeError(f"head and channel groups must be at least 1, not {head_groups} and {channel_groups}")
    if H % G or statistic.shape != (H * P,) or absmax.shape != (H * P,):
        raise ValueError(
            f"{H} heads of {P} channels in {G} groups need [{H * P}] statistics, "
            f"not {list(statistic.shape)} and {list(absmax.shape)}"
        )
    wrong = int((~(statistic.isfinite() & absmax.isfinite())).sum())
    if wrong:
        raise ModelError(f"activations of {wrong} of {H * P} channels are not finite: check the checkpoint")
    heads_each = H // G
    profile = statistic.detach().double().cpu().view(H, P)
    profile, channels = profile.sort(dim=1, stable=True)
    largest = absmax.detach().double().cpu().abs().view(H, P).gather(1, channels)
    norm = torch.linalg.vector_norm(profile, dim=1, keepdim=True)
    unit = profile / norm.masked_fill(norm == 0, 1.0)

    order, head_ends, channel_ends = [], [], []
    for g in range(G):
        first = g * heads_each
        labels = ward(unit[first : first + heads_each], min(head_groups, heads_each))
        order.append(first + labels.argsort(stable=True))
        ends = labels.bincount().cumsum(0).tolist()
        head_ends.append(ends)
        # The rows of a head group are those of the clustered order: `ends` count in it.
        clustered = largest[order[g]]
        channel_ends.append(
            [
                segment(clustered[start:end].amax(dim=0), min(channel_groups, P))
                for start, end in zip([0, *ends], ends, strict=False)
            ]
        )
    head_order = torch.cat(order)
    return Grouping(
        head_order=head_order,
        channel_order=(head_order[:, None] * P + channels[head_order]).flatten(),
        head_ends=torch.tensor(head_ends),
        channel_ends=torch.tensor(channel_ends),
    )


@torch.no_grad()
def permute_mixer(mixer: nn.Module, grouping: Grouping) -> None:
    """Bring a float mixer's heads and channels into the grouping's order, in place; what it computes stays the same.

    The channels' order is that of z and x in in_proj, of the convolution's first E channels, the gated norm and
    out_proj's columns; the heads' that of dt, A_log and dt_bias; D has the one it is given for. B and C stay.

    Where out_proj's input is rotated already, out_proj stays as it is and the rotation restores the old order first: so
    what was observed of that input before holds after, and one sweep serves every grouping.

    Raises:
        TypeError: it is no float Mamba-2 mixer.
        ValueError: the grouping is for other sizes.
    """
    if not isinstance(mixer, Mamba2Mixer):
        raise TypeError(f"cannot reorder the heads of a {type(mixer).__name__}: only Mamba-2 has them")
    c = mixer.config
    in_proj, conv1d, norm, out_proj = mixer.in_proj, mixer.conv1d, mixer.norm, mixer.out_proj
    A_log, D, dt_bias = mixer.A_log, mixer.D, mixer.dt_bias
    if not (
        isinstance(in_proj, Linear)
        and isinstance(conv1d, CausalConv1d)
        and isinstance(norm, GatedRMSNorm | PlainGate)
        and isinstance(out_proj, Linear)
        and isinstance(A_log, Parameter)
        and isinstance(D, Parameter)
        and isinstance(dt_bias, Parameter)
    ):
        raise TypeError("cannot reorder the heads of a quantized mixer: reorder first, then quantize")
    sizes = (grouping.ngroups, len(grouping.head_order), len(grouping.channel_order))
    if sizes != (c.ngroups, c.nheads, c.d_inner):
        raise ValueError(
            f"the grouping is for {sizes[0]} SSD groups, {sizes[1]} heads and {sizes[2]} channels, "
            f"the layer has {c.ngroups}, {c.nheads} and {c.d_inner}"
        )
    E, GN = c.d_inner, c.ngroups * c.d_state
    heads = grouping.head_order.to(out_proj.weight.device)
    channels = grouping.channel_order.to(out_proj.weight.device)
    fixed = torch.arange(2 * GN, device=channels.device)
    rows = torch.cat([channels, E + channels, 2 * E + fixed, 2 * E + 2 * GN + heads])
    conv_rows = torch.cat([channels, E + fixed])
    for part, index in ((in_proj, rows), (conv1d, conv_rows)):
        part.weight = part.weight[index]
        part.bias = None if part.bias is None else part.bias[index]
    for parameter, index in ((A_log, heads), (dt_bias, heads), (D, channels if c.D_has_hdim else heads)):
        parameter.weight = parameter.weight[index]
    if isinstance(norm, GatedRMSNorm):
        norm.weight = norm.weight[channels]
    if isinstance(mixer.rotation, nn.Identity):
        out_proj.weight = out_proj.weight.index_select(1, channels)
    else:
        mixer.rotation = nn.Sequential(RestoreOrder(channels), mixer.rotation)


class RestoreOrder(nn.Module):
    """Channels back in the order they had before a permutation.

    Args:
        channel_order: int64 [E], the old index at each new position.
    """

    places: Tensor

    def __init__(self, channel_order: Tensor) -> None:
        super().__init__()
        self.register_buffer("places", channel_order.argsort().int())

    def forward(self, x: Tensor) -> Tensor:
        """[..., E] to [..., E]."""
        return x.index_select(-1, self.places)


__all__ = ["CHANNEL_GROUPS", "HEAD_GROUPS", "RestoreOrder", "cluster", "permute_mixer"]
