# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, var-annotated, attr-defined, unreachable"
# (What Triton compiles has no Python types.)
"""A few rows times a weight of 4-bit codes, which meet 8-bit activations as integers; as `triton_gemv` otherwise.

    W_nk = clamp(round(c f_ng), -128, 127)    c the code of column k, g its group, f the group's factor

A byte permutation looks the integers of four codes up at once: `quamba.kernels.packed4` has the tables.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.convolution import Convolution, Following, Past, read_behind, sizes_behind
from quamba.kernels.packed4 import Packed4
from quamba.kernels.triton_common import dot4, pack_codes, wait_before
from quamba.kernels.triton_few import ask_for, convolution_of, finish, follow


@triton.jit
def _subtracted(far, DEVICE: tl.constexpr):
    """The other table's high word: of 5, 6, 7 and -8 what stands for -5, -6, 0 and -7."""
    if DEVICE:
        moved = tl.inline_asm_elementwise(
            "prmt.b32 $0, $1, 0, 0x2410;", "=r,r", [far], dtype=tl.int32, is_pure=True, pack=1
        )
    else:
        moved = (far & 0xFFFF) | ((far & 0xFF0000) << 8)
    # 1 less for -7, where the sign of -8 stands in the one table.
    return moved - (1 << 24)


@triton.jit
def _chosen(low, high, codes, DEVICE: tl.constexpr):
    """Bytes 0..7 of `low` and `high` that four 3-bit codes of the low half of `codes` choose; where the bit above is
    set, the byte's sign eight times."""
    if DEVICE:
        return tl.inline_asm_elementwise(
            "prmt.b32 $0, $1, $2, $3;", "=r,r,r,r", [low, high, codes], dtype=tl.int32, is_pure=True, pack=1
        )
    both = (high.to(tl.int64) << 32) | (low.to(tl.int64) & 0xFFFFFFFF)
    out = tl.zeros(codes.shape, dtype=tl.int64)
    for i in tl.static_range(4):
        nibble = ((codes >> (4 * i)) & 0xF).to(tl.int64)
        byte = (both >> (8 * (nibble & 7))) & 0xFF
        out |= tl.where(nibble < 8, byte, (byte >> 7) * 0xFF) << (8 * i)
    return out.to(tl.int32)


@triton.jit
def gemv4_kernel(
    x,
    w,
    tables,
    scale,
    bias,
    norm_weight,
    in_scale,
    out,
    ring,
    position,
    conv_weight,
    conv_factor,
    conv_bias,
    conv_scale,
    next_weight,
    sums,
    x_stride,
    eps,
    N: tl.constexpr,
    K8: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    LINE: tl.constexpr,
    TAPS: tl.constexpr,
    FIRST: tl.constexpr,
    CHANNELS: tl.constexpr,
    NEXT: tl.constexpr,
    NEXT_BLOCK: tl.constexpr,
    NORM: tl.constexpr,
    BIAS: tl.constexpr,
    OUT: tl.constexpr,
    DEVICE: tl.constexpr,
    PDL: tl.constexpr,
):
    """Rows BLOCK * program_id(0).. of w, times row program_id(1) of x; K8 = K / 8 is a multiple of CHUNK, that of 4."""
    lines: tl.constexpr = BLOCK // LINE
    QUADS: tl.constexpr = CHUNK // 4
    rows = tl.program_id(0) * BLOCK + tl.arange(0, LINE)[:, None] + tl.arange(0, lines)[None, :] * LINE
    # Beyond the last row it is read again, which costs no mask, and not written.
    rows = tl.minimum(rows, N - 1)
    quads = tl.arange(0, QUADS)
    words = quads[:, None] * 4 + tl.arange(0, 4)[None, :]
    base = w + rows.to(tl.int64)[None, :, :, None] * K8 + words[:, None, None, :]
    # Groups of 16 words.
    table = tables + rows.to(tl.int64)[None, :, :, None] * (K8 // 16) + (quads // 4)[:, None, None, None]
    weights = ()
    found = ()
    for i in tl.static_range(K8 // CHUNK):
        tile = tl.load(base + i * CHUNK)
        weights = weights + (tile,)  # noqa: RUF005  # Triton has no *
        found = found + (tl.load(table + i * CHUNK // 16),)  # noqa: RUF005
    # What is a row's own, in order: a thread has no more than one.
    own = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = own < N
    factor = tl.load(scale + own, mask=there, other=0.0)
    if BIAS:
        shift = tl.load(bias + own, mask=there, other=0.0)
    columns = tl.arange(0, 2 * CHUNK)
    if NORM:
        inverse = 1.0 / tl.load(in_scale)
        gains = ()
        for i in tl.static_range(K8 // CHUNK):
            gain = tl.load(norm_weight + (2 * i * CHUNK + columns)[:, None] * 4 + tl.arange(0, 4)[None, :])
            gains = gains + (gain * inverse,)  # noqa: RUF005
    row = tl.program_id(1)
    target = out + row * N + own
    kept, past, before = target, (), factor
    if TAPS > 0:
        kept, past = convolution_of(
            ring, position, conv_weight, conv_factor, conv_bias, conv_scale, row, own - FIRST, CHANNELS, TAPS
        )
    first_channel = tl.program_id(0) * BLOCK - FIRST
    if PDL and NEXT > 0 and NEXT % 4 == 0:
        ask_for(next_weight, first_channel, BLOCK, CHANNELS, NEXT)
    wait_before(PDL)
    if OUT == 2:
        before = tl.load(target, mask=there, other=0.0)
    given = ()
    if NORM:
        place = x + row * x_stride + columns[:, None] * 4 + tl.arange(0, 4)[None, :]
        squares = tl.zeros([2 * CHUNK, 4], dtype=tl.float32)
        for i in tl.static_range(K8 // CHUNK):
            r = tl.load(place + i * 8 * CHUNK)
            given = given + (r,)  # noqa: RUF005
            squares += r * r
        rstd = tl.rsqrt(tl.sum(tl.sum(squares, axis=1), axis=0) / (8 * K8) + eps)
    else:
        first = quads[:, None] * 8 + tl.arange(0, 4)[None, :]
        place = x + row * x_stride + tl.zeros([1, LINE, 1, 1], dtype=tl.int32) + first[:, None, None, :]
        for i in tl.static_range(K8 // CHUNK):
            pair = tl.load(place + 2 * i * CHUNK), tl.load(place + (2 * i * CHUNK + 4))
            given = given + (pair,)  # noqa: RUF005
    plus = tl.zeros([QUADS, LINE, lines, 4], dtype=tl.int32)
    minus = tl.zeros([QUADS, LINE, lines, 4], dtype=tl.int32)
    for i in tl.static_range(K8 // CHUNK):
        if NORM:
            packed = tl.reshape(pack_codes(given[i] * rstd * gains[i]), [QUADS, 2, 4])
            pair = tl.split(tl.permute(packed, (0, 2, 1)))
        near = (found[i] & 0xFFFFFFFF).to(tl.int32)
        far = (found[i] >> 32).to(tl.int32)
        low = tl.broadcast_to(near, [QUADS, LINE, lines, 4])
        high = tl.broadcast_to(far, [QUADS, LINE, lines, 4])
        subtracted = tl.broadcast_to(_subtracted(far, DEVICE), [QUADS, LINE, lines, 4])
        for half in tl.static_range(2):
            codes = pair[half][:, None, None, :] if NORM else given[i][half]
            codes = tl.broadcast_to(codes, [QUADS, LINE, lines, 4])
            chosen = weights[i] >> (16 * half)
            plus = dot4(_chosen(low, high, chosen, DEVICE), codes, plus, DEVICE)
            minus = dot4(_chosen(low, subtracted, chosen ^ 0x8888, DEVICE), codes, minus, DEVICE)
    total = tl.reshape(tl.trans(tl.sum(tl.sum(plus - minus, axis=3), axis=0)), [BLOCK])
    # To the thread that has the rest of a row: without this all would have the rest of many.
    y = tl.gather(total, tl.arange(0, BLOCK), axis=0).to(tl.float32) * factor
    if BIAS:
        y += shift
    y = finish(y, before, past, kept, target, there, OUT, TAPS)
    if NEXT > 0:
        follow(y, past, next_weight, sums + row * NEXT, first_channel, CHANNELS, NEXT, NEXT_BLOCK, DEVICE)


def gemv4(
    x: Tensor,
    w: Packed4,
    scale: Tensor,
    bias: Tensor | None,
    out: Tensor,
    *,
    kind: int,
    norm: tuple[Tensor, Tensor, float] | None = None,
    conv: tuple[Convolution, Past] | None = None,
    following: Following | None = None,
    block: int = 16,
    warps: int = 8,
    registers: int | None = None,
    device: bool = True,
    pdl: bool = False,
) -> None:
    """Launch it; arguments as `quamba.kernels.triton_gemv.gemv`, but for the weight."""
    rows, words = w.codes.shape
    chunk = min(words & -words, 128)
    norm_weight, in_scale, eps = (scale, scale, 0.0) if norm is None else norm
    if norm is None:
        x = x.view(torch.int32)
    gemv4_kernel[(triton.cdiv(rows, block), len(x))](
        x,
        w.codes,
        w.tables,
        scale,
        scale if bias is None else bias,
        norm_weight,
        in_scale,
        out,
        *read_behind(conv, following, scale),
        x.stride(0),
        eps,
        N=rows,
        K8=words,
        CHUNK=chunk,
        BLOCK=block,
        LINE=min(block, max(1, 128 * warps // chunk)),
        **sizes_behind(conv, following),
        NORM=norm is not None,
        BIAS=bias is not None,
        OUT=kind,
        DEVICE=device,
        PDL=pdl,
        num_warps=warps,
        enable_fp_fusion=False,
        **({} if registers is None else {"maxnreg": registers}),
        **({"launch_pdl": True} if pdl else {}),
    )


__all__ = ["gemv4", "gemv4_kernel"]
