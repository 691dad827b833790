# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""What the products of a few rows have in common, whatever the weight: all that comes behind them."""

import triton
import triton.language as tl

from quamba.kernels.triton_common import convolve_new, convolve_past, round_codes


@triton.jit
def convolution_of(
    ring,
    position,
    weight,
    factor,
    bias,
    scale,
    row,
    channels,
    CHANNELS: tl.constexpr,
    TAPS: tl.constexpr,
):
    """Where the convolution keeps new codes of these channels, and what it needs besides them.

    The latter is the sum over the past; the new code's weight, factor, bias and scale; and which channels there are.
    """
    t = tl.load(position)
    there = (channels >= 0) & (channels < CHANNELS)
    own = ring + row * (TAPS * CHANNELS)
    past = convolve_past(own, weight, factor, bias, scale, channels, there, t, CHANNELS, TAPS)
    return own + (t % TAPS) * CHANNELS + channels, past + (there,)  # noqa: RUF005  # Triton has no *


@triton.jit
def finish(y, before, past, kept, target, there, OUT: tl.constexpr, TAPS: tl.constexpr):
    """Store y, float32 in units of the output: as codes, behind a convolution or not, or as it is, or added to.

    Args:
        y: of a program's rows of a weight.
        before: what it is added to.
        past: as `convolution_of` gives it; of no use without.
        kept: likewise.
        target: where y belongs.
        there: which rows exist.
        OUT: as in `quamba.kernels.triton_gemv`.
        TAPS: of the convolution, 0 without.
    """
    if OUT == 0:
        y = round_codes(y)
        if TAPS > 0:
            acc, last, f, b, s, conv = past
            tl.store(kept, y.to(tl.int8), mask=conv)
            y = tl.where(conv, convolve_new(y, acc, last, f, b, s), y)
        tl.store(target, y.to(tl.int8), mask=there)
    elif OUT == 1:
        tl.store(target, y, mask=there)
    else:
        tl.store(target, before + y, mask=there)


__all__ = ["convolution_of", "finish"]
