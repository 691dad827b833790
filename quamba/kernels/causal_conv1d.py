"""The depthwise causal convolution before the scan, channels last.

v_t = b + sum_k w_k * x_{t - K + 1 + k}        out_t = SiLU(v_t)
"""

import torch
from torch import Tensor


def causal_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor | None, context: Tensor | None = None, *, silu: bool = False
) -> Tensor:
    """The convolution, with its SiLU or without.

    With integer values in float32 (codes and weights of 8 bits) every product and sum is exact: at most K 2^14.

    Args:
        x: float32 [Bt, L, C].
        weight: float32 [C, K].
        bias: float32 [C] or None.
        context: float32 [Bt, K - 1, C], the inputs before the first; None for zeros.
        silu: apply it.

    Returns:
        float32 [Bt, L, C].
    """
    length, width = x.shape[1], weight.shape[1]
    taps = weight.t().contiguous()
    out = x * taps[-1] if bias is None else torch.addcmul(bias, x, taps[-1])
    for back in range(1, min(width, length)):
        out[:, back:].addcmul_(x[:, :-back], taps[-1 - back])
    if context is not None:
        for back in range(1, width):
            # The first `back` outputs reach that far behind the first input.
            reached = min(back, length)
            out[:, :reached].addcmul_(context[:, width - 1 - back : width - 1 - back + reached], taps[-1 - back])
    return torch.nn.functional.silu(out, inplace=True) if silu else out


def last_inputs(x: Tensor, lengths: Tensor | None, count: int, context: Tensor | None = None) -> Tensor:
    """The last `count` inputs of each row, for the convolution of the tokens that follow: [Bt, count, C].

    Args:
        x: [Bt, L, C], right-padded.
        lengths: int64 [Bt]; None: all of x is real.
        count: K - 1.
        context: [Bt, count, C] before x; None for zeros.
    """
    length, channels = x.shape[1:]
    if lengths is None:
        if length >= count:
            return x[:, length - count :].clone()
        before = x.new_zeros(len(x), count, channels) if context is None else context
        return torch.cat([before[:, length:], x], dim=1)
    # Of x only what is remembered is read.
    positions = lengths[:, None] - count + torch.arange(count, device=x.device)
    inside = x.gather(1, positions.clamp(min=0)[:, :, None].expand(-1, -1, channels))
    outside = (positions < 0)[:, :, None]
    if context is None:
        return inside.masked_fill(outside, 0)
    earlier = (positions + count).clamp(max=count - 1)[:, :, None].expand(-1, -1, channels)
    return torch.where(outside, context.gather(1, earlier), inside)


__all__ = ["causal_conv1d", "last_inputs"]
