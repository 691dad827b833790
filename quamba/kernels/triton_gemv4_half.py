# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, var-annotated, attr-defined, unreachable"
# (What Triton compiles has no Python types.)
"""A few rows of floats times a weight of 4-bit codes (W4A16), in the device's integer dot product.

    y_n = sum_g s_ng sum_{k in g} x_k c_nk (+ b_n)        out = y, or residual += y

Rows come as `triton_split` gives them: of 32 neighbouring x the largest is 32512, the others integers 256 h + l of two
bytes, which is some 90 dB from x. So the canonical bytes of the weight, with columns 2j and 2j + 1 in byte j, are read
as they lie, 16 at a time, and sums within a group are exact.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.triton_common import dot4, wait_before
from quamba.kernels.triton_gemv import ADD, FLOAT
from quamba.kernels.triton_split import Split
from quamba.packing import unpack_int4

# 128 columns share a scale.
GROUP = 128
# Of a program.
_WARPS = 8


@triton.jit
def gemv4_half_kernel(
    x,
    x_scale,
    w,
    group_scale,
    bias,
    out,
    N,
    K8: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    LINE: tl.constexpr,
    BIAS: tl.constexpr,
    OUT: tl.constexpr,
    DEVICE: tl.constexpr,
    PDL: tl.constexpr,
):
    """Rows BLOCK * program_id(0).. of w, times row program_id(1) of x; K8 = K / 8, of CHUNK a multiple, that of 16."""
    lines: tl.constexpr = BLOCK // LINE
    QUADS: tl.constexpr = CHUNK // 4
    SHAPE: tl.constexpr = [QUADS, LINE, lines, 4]
    rows = tl.program_id(0) * BLOCK + tl.arange(0, LINE)[:, None] + tl.arange(0, lines)[None, :] * LINE
    live = rows < N
    quads = tl.arange(0, QUADS)
    words = quads[:, None] * 4 + tl.arange(0, 4)[None, :]
    base = w + rows.to(tl.int64)[None, :, :, None] * K8 + words[:, None, None, :]
    # Groups of 16 words.
    scale = group_scale + rows.to(tl.int64)[None, :, :] * (K8 // 16) + (quads // 4)[:, None, None]
    weights = ()
    scales = ()
    for i in tl.static_range(K8 // CHUNK):
        tile = tl.load(base + i * CHUNK, mask=live[None, :, :, None], other=0)
        weights = weights + (tile,)  # noqa: RUF005  # Triton has no *
        s = tl.load(scale + i * (CHUNK // 16), mask=live[None, :, :], other=0.0)
        scales = scales + (s,)  # noqa: RUF005
    own = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = own < N
    if BIAS:
        shift = tl.load(bias + own, mask=there, other=0.0)
    row = tl.program_id(1)
    wait_before(PDL)
    target = out + row * N + own
    if OUT == 2:
        before = tl.load(target, mask=there, other=0.0)
    place = x + row * (4 * K8) + tl.zeros([1, LINE, 1, 1], dtype=tl.int32) + words[:, None, None, :]
    total = tl.zeros([QUADS, LINE, lines], dtype=tl.float32)
    for i in tl.static_range(K8 // CHUNK):
        even_h = tl.load(place + i * CHUNK)
        odd_h = tl.load(place + K8 + i * CHUNK)
        even_l = tl.load(place + 2 * K8 + i * CHUNK)
        odd_l = tl.load(place + 3 * K8 + i * CHUNK)
        unit = tl.load(x_scale + row * (K8 // 4) + i * QUADS + quads)
        # Codes are taken as 0..15: 8 times the sum of x is what they give too much.
        ones = tl.full([QUADS, LINE, 1, 4], 0x01010101, dtype=tl.int32)
        none = tl.zeros([QUADS, LINE, 1, 4], dtype=tl.int32)
        acc_h = tl.broadcast_to(-8 * dot4(ones, odd_h, dot4(ones, even_h, none, DEVICE), DEVICE), SHAPE)
        acc_l = tl.broadcast_to(-8 * dot4(ones, odd_l, dot4(ones, even_l, none, DEVICE), DEVICE), SHAPE)
        codes = weights[i] ^ -0x77777778
        low = codes & 0x0F0F0F0F
        high = (codes >> 4) & 0x0F0F0F0F
        acc_h = dot4(low, tl.broadcast_to(even_h, SHAPE), acc_h, DEVICE)
        acc_h = dot4(high, tl.broadcast_to(odd_h, SHAPE), acc_h, DEVICE)
        acc_l = dot4(low, tl.broadcast_to(even_l, SHAPE), acc_l, DEVICE)
        acc_l = dot4(high, tl.broadcast_to(odd_l, SHAPE), acc_l, DEVICE)
        # Below 2^24: float32 has it exactly.
        part = tl.sum(acc_h * 256 + acc_l, axis=3).to(tl.float32)
        total += part * (scales[i].to(tl.float32) * unit[:, None, None])
    y = tl.reshape(tl.trans(tl.sum(total, axis=0)), [BLOCK])
    # To the thread that has the rest of a row: without this all would have the rest of many.
    y = tl.gather(y, tl.arange(0, BLOCK), axis=0)
    if BIAS:
        y += shift
    if OUT == 2:
        y += before
    tl.store(target, y, mask=there)


def gemv4_half(
    x: Split,
    codes: Tensor,
    group_scale: Tensor,
    bias: Tensor | None,
    out: Tensor,
    *,
    kind: int = FLOAT,
    block: int = 16,
    device: bool = True,
    pdl: bool = False,
) -> None:
    """Launch it.

    Args:
        x: Bt rows of K, a multiple of 128.
        codes: uint8 [N, K / 2] (`quamba.packing`).
        group_scale: float16 [N, K / 128].
        bias: float32 [N] or None.
        out: float32 [Bt, N].
        kind: `FLOAT` or `ADD`.
        block: rows of the weight a program takes.
        device: use the device's integer dot product.
        pdl: overlap with the kernel before.
    """
    rows, words = len(codes), codes.shape[1] // 4
    chunk = min(words & -words, 128)
    gemv4_half_kernel[(triton.cdiv(rows, block), len(x.scale))](
        x.words,
        x.scale,
        codes.view(torch.int32),
        group_scale,
        group_scale if bias is None else bias,
        out,
        rows,
        K8=words,
        CHUNK=chunk,
        BLOCK=block,
        LINE=min(block, max(1, 128 * _WARPS // chunk)),
        BIAS=bias is not None,
        OUT=kind,
        DEVICE=device,
        PDL=pdl,
        num_warps=_WARPS,
        enable_fp_fusion=False,
        **({"launch_pdl": True} if pdl else {}),
    )


def gemv4_half_reference(
    x: Tensor, codes: Tensor, group_scale: Tensor, bias: Tensor | None, out: Tensor, *, kind: int = FLOAT
) -> None:
    """The definition, in plain PyTorch and float32; x float32 [Bt, K], arguments as `gemv4_half` otherwise."""
    weight = unpack_int4(codes, x.shape[1]) * group_scale.float().repeat_interleave(GROUP, 1)
    y = torch.nn.functional.linear(x.float(), weight, bias)
    if kind == ADD:
        out.add_(y)
    else:
        out.copy_(y)


__all__ = ["GROUP", "gemv4_half", "gemv4_half_kernel", "gemv4_half_reference"]
