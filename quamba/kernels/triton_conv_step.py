# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""The causal convolution of one token's codes with its SiLU, in place, for many rows: as `convolution` defines it.

For few rows it is done behind the product that gives the codes (`quamba.kernels.triton_gemv`).
"""

import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.convolution import Convolution, Past
from quamba.kernels.triton_common import convolve_new, convolve_past, wait_before


@triton.jit
def conv_step_kernel(
    codes,
    ring,
    position,
    weight,
    factor,
    bias,
    scale,
    N,
    FIRST: tl.constexpr,
    CHANNELS: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    """Channels BLOCK * program_id(0).. of row program_id(1)."""
    channels = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.program_id(1)
    live = channels < CHANNELS
    t = tl.load(position)
    kept = ring + row * (TAPS * CHANNELS)
    acc, last, f, b, s = convolve_past(kept, weight, factor, bias, scale, channels, live, t, CHANNELS, TAPS)
    wait_before(PDL)
    place = codes + row * N + FIRST + channels
    new = tl.load(place, mask=live, other=0)
    tl.store(kept + (t % TAPS) * CHANNELS + channels, new, mask=live)
    tl.store(place, convolve_new(new, acc, last, f, b, s).to(tl.int8), mask=live)


def conv_step(codes: Tensor, conv: Convolution, past: Past, *, pdl: bool = False) -> None:
    """Launch it; `past` is brought up to date.

    Args:
        codes: int8 [Bt, N], of which some change in place.
        conv: what it computes.
        past: its memory.
        pdl: overlap with the kernel before.
    """
    taps, channels = conv.weight.shape
    block = 512
    conv_step_kernel[(triton.cdiv(channels, block), len(codes))](
        codes,
        past.ring,
        past.position,
        conv.weight,
        conv.factor,
        conv.bias,
        conv.scale,
        codes.shape[1],
        FIRST=conv.first,
        CHANNELS=channels,
        TAPS=taps,
        BLOCK=block,
        PDL=pdl,
        num_warps=4,
        enable_fp_fusion=False,
        **({"launch_pdl": True} if pdl else {}),
    )


__all__ = ["conv_step", "conv_step_kernel"]
