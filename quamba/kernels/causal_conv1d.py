"""The depthwise causal convolution before the scan, channels last.

v_t = b + sum_k w_k * x_{t - K + 1 + k}        out_t = SiLU(v_t)
"""

import torch
from torch import Tensor


def causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor | None, context: Tensor | None = None) -> Tensor:
    """The convolution without its SiLU.

    With integer values in float32 (codes and weights of 8 bits) every product and sum is exact: at most K 2^14.

    Args:
        x: float32 [Bt, L, C].
        weight: float32 [C, K].
        bias: float32 [C] or None.
        context: float32 [Bt, K - 1, C], the inputs before the first; None for zeros.

    Returns:
        float32 [Bt, L, C].
    """
    batch, length, channels = x.shape
    width = weight.shape[1]
    before = x.new_zeros(batch, width - 1, channels) if context is None else context
    padded = torch.cat([before, x], dim=1)
    out = torch.empty(batch, length, channels, dtype=x.dtype, device=x.device)
    taps = weight.t().contiguous()
    torch.mul(padded[:, :length], taps[0], out=out)
    for k in range(1, width):
        out.addcmul_(padded[:, k : k + length], taps[k])
    if bias is not None:
        out.add_(bias)
    return out


def last_inputs(x: Tensor, lengths: Tensor | None, count: int, context: Tensor | None = None) -> Tensor:
    """The last `count` inputs of each row, for the convolution of the tokens that follow: [Bt, count, C].

    Args:
        x: [Bt, L, C], right-padded.
        lengths: int64 [Bt]; None: all of x is real.
        count: K - 1.
        context: [Bt, count, C] before x; None for zeros.
    """
    before = x.new_zeros(x.shape[0], count, x.shape[2]) if context is None else context
    whole = torch.cat([before, x], dim=1)
    if lengths is None:
        return whole[:, x.shape[1] :].clone()
    positions = lengths[:, None] + torch.arange(count, device=x.device)
    return whole.gather(1, positions[:, :, None].expand(-1, -1, x.shape[2]))


__all__ = ["causal_conv1d", "last_inputs"]
