# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""What the products of a few rows have in common, whatever the weight: all that comes behind them."""

import triton
import triton.language as tl

from quamba.kernels.triton_common import convolve_new, convolve_past, dot4, pack4, prefetch, round_codes


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

    Returns what has become of it, codes as float32.

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
    return y


@triton.jit
def ask_for(weight, first, BLOCK: tl.constexpr, C: tl.constexpr, J: tl.constexpr):
    """Have what `follow` reads of `weight` brought into the second-level cache; J is a multiple of 4."""
    if (first >= 0) & (first < C):
        prefetch(weight + first // 4 * J, tl.minimum(BLOCK, C - first) * J, 0, 1)


@triton.jit
def follow(
    codes,
    past,
    weight,
    sums,
    first,
    C: tl.constexpr,
    J: tl.constexpr,
    J_BLOCK: tl.constexpr,
    DEVICE: tl.constexpr,
):
    """sums_j += sum_c q_c W_jc of the channels from `first` on, all integers, as other programs do at the same time.

    Args:
        codes: as `finish` gives them, the first of channel `first`, a multiple of 4.
        past: of their convolution, as `convolution_of` gives it.
        weight: four channels in each word, [C / 4, J].
        sums: int32 [J].
        first: below 0 for what is before the first channel.
        C: channels, a multiple of 4.
        J: columns of the product.
        J_BLOCK: a power of two, at least J.
        DEVICE: use the device's integer dot product.
    """
    FOURS: tl.constexpr = codes.shape[0] // 4
    if (first > -codes.shape[0]) & (first < C):
        _, _, _, _, _, conv = past
        packed = pack4(tl.reshape(tl.where(conv, codes, 0.0).to(tl.int32), [FOURS, 4]))
        four, j = first // 4 + tl.arange(0, FOURS), tl.arange(0, J_BLOCK)
        inside = ((four >= 0) & (four < C // 4))[:, None] & (j < J)[None, :]
        w = tl.load(weight + four[:, None] * J + j[None, :], mask=inside, other=0)
        products = dot4(w, tl.broadcast_to(packed[:, None], w.shape), tl.zeros(w.shape, dtype=tl.int32), DEVICE)
        tl.atomic_add(sums + j, tl.sum(products, axis=0), mask=j < J, sem="relaxed")


__all__ = ["ask_for", "convolution_of", "finish", "follow"]
