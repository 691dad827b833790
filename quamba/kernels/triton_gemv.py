# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""One row times an 8-bit weight, all in integers, with the norm before it and the scales behind it in the same launch.

    x = codes, or q8(RMSNorm(r) w; s_in) of the residual stream r
    a_n = sum_k x_k W_nk (32-bit integers)
    y_n = a_n s_n (+ b_n)        out = q8 codes of y, or y in float32, or residual += y

A program owns a few rows of W and reads them whole before it waits for its input: 16 bytes a thread and load.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.triton_common import dot4, pack4, quantize, round_codes, wait_before
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
    N,
    eps,
    K4: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    NORM: tl.constexpr,
    BIAS: tl.constexpr,
    OUT: tl.constexpr,
    DEVICE: tl.constexpr,
    PDL: tl.constexpr,
):
    """Rows BLOCK * program_id(0).. of batch row program_id(1); K4 = K / 4 is a multiple of CHUNK."""
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.program_id(1)
    live = rows < N
    columns = tl.arange(0, CHUNK)
    base = w + rows.to(tl.int64)[:, None] * K4 + columns[None, :]
    weights = ()
    for i in tl.static_range(K4 // CHUNK):
        weights = weights + (tl.load(base + i * CHUNK, mask=live[:, None], other=0),)  # noqa: RUF005  # Triton has no *
    factor = tl.load(scale + rows, mask=live, other=0.0)
    wait_before(PDL)
    acc = tl.zeros([BLOCK, CHUNK], dtype=tl.int32)
    if NORM:
        values = x + row * (4 * K4) + columns[:, None] * 4 + tl.arange(0, 4)[None, :]
        s_in = tl.load(in_scale)
        squares = tl.zeros([CHUNK, 4], dtype=tl.float32)
        for i in tl.static_range(K4 // CHUNK):
            r = tl.load(values + i * 4 * CHUNK)
            squares += r * r
        rstd = tl.rsqrt(tl.sum(tl.sum(squares, axis=1), axis=0) / (4 * K4) + eps)
        for i in tl.static_range(K4 // CHUNK):
            g = tl.load(norm_weight + (i * CHUNK + columns)[:, None] * 4 + tl.arange(0, 4)[None, :])
            u = tl.load(values + i * 4 * CHUNK) * rstd * g
            packed = pack4(quantize(u, s_in))
            acc = dot4(weights[i], tl.broadcast_to(packed[None, :], [BLOCK, CHUNK]), acc, DEVICE)
    else:
        for i in tl.static_range(K4 // CHUNK):
            packed = tl.load(x + row * K4 + i * CHUNK + columns)
            acc = dot4(weights[i], tl.broadcast_to(packed[None, :], [BLOCK, CHUNK]), acc, DEVICE)
    y = tl.sum(acc, axis=1).to(tl.float32) * factor
    if BIAS:
        y += tl.load(bias + rows, mask=live, other=0.0)
    target = out + row * N + rows
    if OUT == 0:
        tl.store(target, round_codes(y).to(tl.int8), mask=live)
    elif OUT == 1:
        tl.store(target, y, mask=live)
    else:
        tl.store(target, tl.load(target, mask=live, other=0.0) + y, mask=live)


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
    block: int = 16,
    warps: int = 8,
    device: bool = True,
    pdl: bool = False,
) -> None:
    """Launch it.

    Args:
        x: int8 [Bt, K], or float32 [Bt, K] where `norm` is given.
        w: int8 [N, K], K a multiple of 16.
        scale: float32 [N], all scales of the product in one.
        bias: float32 [N] in units of the output, or None.
        out: int8 (`CODES`) or float32 (`FLOAT`, `ADD`) [Bt, N].
        kind: what becomes of y.
        norm: the norm's weight float32 [K], the scale of what it gives, and eps.
        block: rows of w a program takes.
        warps: of a program.
        device: use the device's integer dot product.
        pdl: overlap with the kernel before.
    """
    rows, inner = w.shape
    grid = (triton.cdiv(rows, block), x.shape[0])
    norm_weight, in_scale, eps = (scale, scale, 0.0) if norm is None else norm
    gemv_kernel[grid](
        x if norm is not None else x.view(torch.int32),
        w.view(torch.int32),
        scale,
        scale if bias is None else bias,
        norm_weight,
        in_scale,
        out,
        rows,
        eps,
        K4=inner // 4,
        CHUNK=chunk_of(inner),
        BLOCK=block,
        NORM=norm is not None,
        BIAS=bias is not None,
        OUT=kind,
        DEVICE=device,
        PDL=pdl,
        num_warps=warps,
        enable_fp_fusion=False,
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
) -> None:
    """The definition, in plain PyTorch; arguments as `gemv`."""
    if norm is not None:
        weight, in_scale, eps = norm
        x = quantize_int8(torch.nn.functional.rms_norm(x, weight.shape, weight, eps), in_scale).codes
    y = (x.long() @ w.long().t()).to(torch.int32) * scale
    if bias is not None:
        y = y + bias
    if kind == CODES:
        out.copy_(y.round().clamp(QMIN, QMAX))
    elif kind == FLOAT:
        out.copy_(y)
    else:
        out.add_(y)


__all__ = ["ADD", "CODES", "FLOAT", "chunk_of", "gemv", "gemv_kernel", "gemv_reference"]
