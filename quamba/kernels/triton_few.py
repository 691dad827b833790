# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""What the products of a few rows have in common, whatever the weight: the norm before them, and what follows."""

import triton
import triton.language as tl

from quamba.kernels.triton_common import convolve_new, pack_codes, round_codes


@triton.jit
def normed(x, weight, scale, eps, scratch, WORDS: tl.constexpr, PIECE: tl.constexpr):
    """q8(RMSNorm(x) w; s) of 4 WORDS values, as words of four codes in `scratch`, memory of this program alone.

    All threads make some of the codes and need others: through memory that takes two barriers, where exchanges between
    registers take some for every piece.
    """
    PIECES: tl.constexpr = (WORDS + PIECE - 1) // PIECE
    words = tl.arange(0, PIECE)
    columns = words[:, None] * 4 + tl.arange(0, 4)[None, :]
    given = ()
    squares = tl.zeros([PIECE, 4], dtype=tl.float32)
    for i in tl.static_range(PIECES):
        there = columns + i * 4 * PIECE < 4 * WORDS
        r = tl.load(x + columns + i * 4 * PIECE, mask=there, other=0.0)
        given = given + (r,)  # noqa: RUF005  # Triton has no *
        squares += r * r
    rstd = tl.rsqrt(tl.sum(tl.sum(squares, axis=1), axis=0) / (4 * WORDS) + eps)
    inverse = 1.0 / tl.load(scale)
    for i in tl.static_range(PIECES):
        there = columns + i * 4 * PIECE < 4 * WORDS
        gain = tl.load(weight + columns + i * 4 * PIECE, mask=there, other=0.0)
        packed = pack_codes(given[i] * rstd * (gain * inverse))
        tl.store(scratch + words + i * PIECE, packed, mask=words + i * PIECE < WORDS)
    tl.debug_barrier()


@triton.jit
def finish(y, before, past, kept, target, slot, there, OUT: tl.constexpr, TAPS: tl.constexpr):
    """Store y, float32 and in units of the output: as codes, behind a convolution or not, or as it is, or added.

    Args:
        y: of a program's rows of a weight.
        before: what it is added to.
        past: of the convolution: the sum over the past, the new code's weight, factor, bias, scale, and which rows.
        kept: where the convolution keeps the new codes of these rows, but for `slot`.
        target: where y belongs.
        slot: of the ring.
        there: which rows exist.
        OUT: as in `quamba.kernels.triton_gemv`.
        TAPS: of the convolution, 0 without.
    """
    if OUT == 0:
        y = round_codes(y)
        if TAPS > 0:
            acc, last, f, b, s, conv = past
            tl.store(kept + slot, y.to(tl.int8), mask=conv)
            y = tl.where(conv, convolve_new(y, acc, last, f, b, s), y)
        tl.store(target, y.to(tl.int8), mask=there)
    elif OUT == 1:
        tl.store(target, y, mask=there)
    else:
        tl.store(target, before + y, mask=there)


__all__ = ["finish", "normed"]
