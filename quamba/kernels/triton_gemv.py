# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, var-annotated, attr-defined, unreachable"
# (What Triton compiles has no Python types.)
"""A few rows times an 8-bit weight, all in integers, with the norm before and the scales behind in the same launch.

    x = codes, or q8(RMSNorm(r) w; s_in) of the residual stream r
    a_n = sum_k x_k W_nk (32-bit integers)
    y_n = a_n s_n (+ b_n)        out = q8 codes of y, or y in float32, or residual += y

Behind codes a convolution can follow, of which each needs no more than its own past; and behind that another product,
of which each program adds its part to sums of 32-bit integers: whatever their order, they are the same.

A program owns a few rows of W and reads them whole, 16 bytes a thread and load, before it waits for its input.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.convolution import (
    Convolution,
    Following,
    Past,
    convolve_reference,
    read_behind,
    sizes_behind,
)
from quamba.kernels.triton_common import dot4, pack_codes, wait_before
from quamba.kernels.triton_few import ask_for, convolution_of, finish, follow
from quamba.qtypes import QMAX, QMIN, quantize_int8

CODES, FLOAT, ADD = 0, 1, 2


@triton.jit
def gemv_kernel(
    x,
    w,
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
    K4: tl.constexpr,
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
    """Rows BLOCK * program_id(0).. of w, times row program_id(1) of x; K4 = K / 4 is a multiple of CHUNK.

    LINE rows of w are what all threads read at once: laid out so, each thread reads of x what it needs, and nothing is
    exchanged.
    """
    lines: tl.constexpr = BLOCK // LINE
    rows = tl.program_id(0) * BLOCK + tl.arange(0, LINE)[:, None] + tl.arange(0, lines)[None, :] * LINE
    columns = tl.arange(0, CHUNK)
    # Beyond the last row it is read again, which costs no mask, and not written.
    base = w + tl.minimum(rows, N - 1).to(tl.int64)[:, :, None] * K4 + columns[None, None, :]
    weights = ()
    for i in tl.static_range(K4 // CHUNK):
        tile = tl.load(base + i * CHUNK)
        weights = weights + (tile,)  # noqa: RUF005  # Triton has no *
    # What is a row's own, in order: a thread has no more than one.
    own = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = own < N
    factor = tl.load(scale + own, mask=there, other=0.0)
    if BIAS:
        shift = tl.load(bias + own, mask=there, other=0.0)
    if NORM:
        inverse = 1.0 / tl.load(in_scale)
        gains = ()
        for i in tl.static_range(K4 // CHUNK):
            gain = tl.load(norm_weight + (i * CHUNK + columns)[:, None] * 4 + tl.arange(0, 4)[None, :])
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
        squares = tl.zeros([CHUNK, 4], dtype=tl.float32)
        for i in tl.static_range(K4 // CHUNK):
            r = tl.load(place + i * 4 * CHUNK)
            given = given + (r,)  # noqa: RUF005
            squares += r * r
        rstd = tl.rsqrt(tl.sum(tl.sum(squares, axis=1), axis=0) / (4 * K4) + eps)
    else:
        place = x + row * x_stride + tl.zeros([LINE, 1, 1], dtype=tl.int32) + columns[None, None, :]
        for i in tl.static_range(K4 // CHUNK):
            given = given + (tl.load(place + i * CHUNK),)  # noqa: RUF005
    acc = tl.zeros([LINE, lines, CHUNK], dtype=tl.int32)
    for i in tl.static_range(K4 // CHUNK):
        packed = given[i]
        if NORM:
            packed = pack_codes(packed * rstd * gains[i])[None, None, :]
        acc = dot4(weights[i], tl.broadcast_to(packed, [LINE, lines, CHUNK]), acc, DEVICE)
    total = tl.reshape(tl.trans(tl.sum(acc, axis=2)), [BLOCK])
    # To the thread that has the rest of a row: without this all would have the rest of many.
    y = tl.gather(total, tl.arange(0, BLOCK), axis=0).to(tl.float32) * factor
    if BIAS:
        y += shift
    y = finish(y, before, past, kept, target, there, OUT, TAPS)
    if NEXT > 0:
        follow(y, past, next_weight, sums + row * NEXT, first_channel, CHANNELS, NEXT, NEXT_BLOCK, DEVICE)


def chunk_of(inner: int) -> int:
    """The columns, in int32, that a step takes of a row of K bytes: the largest power of two that divides it, to 256.

    Raises:
        ValueError: rows are not whole 16 bytes.
    """
    if inner % 16:
        raise ValueError(f"rows of {inner} bytes are not whole 16 bytes")
    words = inner // 4
    return min(words & -words, 256)


def gemv(
    x: Tensor,
    w: Tensor,
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
    """Launch it.

    Args:
        x: int8 [Bt, K], or float32 [Bt, K] where `norm` is given; rows may lie apart.
        w: int8 [N, K], K a multiple of 16.
        scale: float32 [N], all scales of the product in one.
        bias: float32 [N] in units of the output, or None.
        out: int8 (`CODES`) or float32 (`FLOAT`, `ADD`) [Bt, N].
        kind: what becomes of y.
        norm: the norm's weight float32 [K], the scale of what it gives, and eps.
        conv: a convolution behind it, for codes; its memory is brought up to date.
        following: a product of the codes behind the convolution.
        block: rows of w a program takes.
        warps: of a program.
        registers: the most that a thread may use; None: the compiler decides.
        device: use the device's integer dot product.
        pdl: overlap with the kernel before.
    """
    rows, inner = w.shape
    chunk = chunk_of(inner)
    norm_weight, in_scale, eps = (scale, scale, 0.0) if norm is None else norm
    if norm is None:
        x = x.view(torch.int32)
    gemv_kernel[(triton.cdiv(rows, block), len(x))](
        x,
        w.view(torch.int32),
        scale,
        scale if bias is None else bias,
        norm_weight,
        in_scale,
        out,
        *read_behind(conv, following, scale),
        x.stride(0),
        eps,
        N=rows,
        K4=inner // 4,
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


def gemv_reference(
    x: Tensor,
    w: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    out: Tensor,
    *,
    kind: int,
    norm: tuple[Tensor, Tensor, float] | None = None,
    conv: tuple[Convolution, Past] | None = None,
    following: Following | None = None,
) -> None:
    """The definition, in plain PyTorch; arguments as `gemv`."""
    if norm is not None:
        weight, in_scale, eps = norm
        x = quantize_int8(torch.nn.functional.rms_norm(x, weight.shape, weight, eps), in_scale).codes
    y = (x.double() @ w.double().t()).to(torch.int32) * scale
    if bias is not None:
        y = y + bias
    if kind == CODES:
        out.copy_(y.round().clamp(QMIN, QMAX))
        if conv is not None:
            convolve_reference(out, *conv)
            if following is not None:
                weight = following.weight.t().contiguous().view(torch.int8)
                codes = out[:, conv[0].first : conv[0].first + weight.shape[1]]
                following.sums.add_((codes.double() @ weight.double().t()).to(torch.int32))
    elif kind == FLOAT:
        out.copy_(y)
    else:
        out.add_(y)


__all__ = ["ADD", "CODES", "FLOAT", "chunk_of", "gemv", "gemv_kernel", "gemv_reference"]
