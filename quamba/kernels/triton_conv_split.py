# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, no-untyped-call"
# (What Triton compiles has no Python types.)
"""One token through a convolution of floats and its SiLU, and as bytes for the integer dot product behind it.

out = SiLU(sum_tap w_tap x_{t - tap} + b)        and, where asked for, out as `triton_split` has it
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.triton_common import silu, wait_before
from quamba.kernels.triton_split import Split, split_reference, store_split


@triton.jit
def conv_split_kernel(
    x,
    ring,
    position,
    weights,
    bias,
    out,
    words,
    scale,
    C,
    x_stride,
    TAPS: tl.constexpr,
    QUADS: tl.constexpr,
    SPLIT: tl.constexpr,
    PDL: tl.constexpr,
):
    """Channels 32 QUADS * program_id(0).. of row program_id(1)."""
    quads = tl.program_id(0) * QUADS + tl.arange(0, QUADS)
    place = (
        quads[:, None, None, None] * 32
        + tl.arange(0, 4)[None, :, None, None] * 8
        + tl.arange(0, 4)[None, None, :, None] * 2
        + tl.arange(0, 2)[None, None, None, :]
    )
    live = place < C
    row = tl.program_id(1)
    t = tl.load(position)
    past = ring + row * (TAPS * C)
    acc = tl.load(bias + place, mask=live, other=0.0)
    for tap in tl.static_range(TAPS - 1):
        slot = (t + 1 + tap) % TAPS
        kept = tl.load(past + slot * C + place, mask=live, other=0.0)
        acc += kept * tl.load(weights + tap * C + place, mask=live, other=0.0)
    last = tl.load(weights + (TAPS - 1) * C + place, mask=live, other=0.0)
    wait_before(PDL)
    new = tl.load(x + row * x_stride + place, mask=live, other=0.0)
    # The place of the oldest input, which nobody reads any more.
    tl.store(past + (t % TAPS) * C + place, new, mask=live)
    y = silu(acc + new * last)
    tl.store(out + row * C + place, y, mask=live)
    if SPLIT:
        store_split(words + row * (C // 2), scale + row * (C // 32), y, quads, C // 8)


def conv_split(
    x: Tensor,
    ring: Tensor,
    position: Tensor,
    weights: Tensor,
    bias: Tensor,
    out: Tensor,
    split: Split | None,
    *,
    pdl: bool = False,
) -> None:
    """Launch it; `ring` is brought up to date.

    Args:
        x: float32 [Bt, C], C a multiple of 32; rows may lie apart.
        ring: the last inputs, the one of time t at t % taps, float32 [Bt, taps, C].
        position: the token's time, int32 [1].
        weights: float32 [taps, C].
        bias: float32 [C].
        out: float32 [Bt, C].
        split: the same as bytes, or None.
        pdl: overlap with the kernel before.
    """
    taps, channels = weights.shape
    given = Split(out, out) if split is None else split
    conv_split_kernel[(triton.cdiv(channels, 128), len(x))](
        x,
        ring,
        position,
        weights,
        bias,
        out,
        given.words,
        given.scale,
        channels,
        x.stride(0),
        TAPS=taps,
        QUADS=4,
        SPLIT=split is not None,
        PDL=pdl,
        num_warps=1,
        enable_fp_fusion=False,
        **({"launch_pdl": True} if pdl else {}),
    )


def conv_split_reference(
    x: Tensor, ring: Tensor, position: Tensor, weights: Tensor, bias: Tensor, out: Tensor, split: Split | None
) -> None:
    """The definition, in plain PyTorch; arguments as `conv_split`."""
    taps, t = len(weights), int(position)
    ring[:, t % taps] = x
    order = [(t + 1 + tap) % taps for tap in range(taps)]
    out.copy_(torch.nn.functional.silu((ring[:, order] * weights).sum(1) + bias))
    if split is not None:
        split_reference(out, split)


__all__ = ["conv_split", "conv_split_kernel", "conv_split_reference"]
