# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""Rows of floats times a weight of 4-bit codes (W4A16), on the tensor cores in float16.

    y_mn = u_m sum_k (x_mk / u_m) (c_nk s_ng) (+ b_n)        g the group of 128 columns, u_m a power of two
    out = y, or residual += y

x / u and c s are rounded to float16, whatever their size, which is 71 dB from float32; sums are float32. The canonical
bytes of the weight hold columns 2j and 2j + 1: x comes as its even and its odd columns, so that they are read as they
lie. The weight is the left operand.
"""

import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.triton_common import wait_before
from quamba.kernels.triton_gemv4_half import gemv4_half_reference
from quamba.kernels.triton_halves import Halves

_UNPACK = tl.constexpr("""{
    .reg .b32 a, t, h, m;
    mov.b32 h, 0x64646464; mov.b32 m, 0x64086408;
    xor.b32 a, $4, 0x88888888;
    and.b32 t, a, 0x0F0F0F0F;
    prmt.b32 $0, t, h, 0x4140; prmt.b32 $1, t, h, 0x4342;
    shr.u32 t, a, 4; and.b32 t, t, 0x0F0F0F0F;
    prmt.b32 $2, t, h, 0x4140; prmt.b32 $3, t, h, 0x4342;
    sub.f16x2 $0, $0, m; sub.f16x2 $1, $1, m; sub.f16x2 $2, $2, m; sub.f16x2 $3, $3, m;
}""")


@triton.jit
def unpack_half(packed, DEVICE: tl.constexpr):
    """Low and high codes of bytes, float16: 0x6400 + (c + 8) is 1032 + c."""
    if DEVICE:
        low, high = tl.inline_asm_elementwise(
            _UNPACK, "=r,=r,=r,=r,r", [packed], dtype=(tl.float16, tl.float16), is_pure=True, pack=4
        )
    else:
        low = (((packed & 15) ^ 8).to(tl.int32) - 8).to(tl.float16)
        high = (((packed >> 4) ^ 8).to(tl.int32) - 8).to(tl.float16)
    return low, high


@triton.jit
def gemm4_half_kernel(
    x,
    unit,
    w,
    group_scale,
    bias,
    out,
    M,
    N,
    K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    GROUP_M: tl.constexpr,
    BIAS: tl.constexpr,
    OUT: tl.constexpr,
    DEVICE: tl.constexpr,
    PDL: tl.constexpr,
):
    """One tile of out; programs go through GROUP_M tiles of rows before the next columns."""
    blocks_m, blocks_n = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    program = tl.program_id(0)
    first = program // (GROUP_M * blocks_n) * GROUP_M
    size = tl.minimum(blocks_m - first, GROUP_M)
    m = (first + program % (GROUP_M * blocks_n) % size) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = program % (GROUP_M * blocks_n) // size * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, 64)
    # Rows beyond the last are read as row 0, and not written.
    n_row = tl.where(n < N, n, 0).to(tl.int64)
    bytes_ = w + n_row[:, None] * (K // 2) + k[None, :]
    # A group's scales lie side by side: they are brought ahead of time as the codes are.
    scales = group_scale + n
    even = x + tl.where(m < M, m, 0).to(tl.int64)[None, :] * K + k[:, None]
    if BIAS:
        shift = tl.load(bias + n_row)
    wait_before(PDL)
    acc = tl.zeros([BLOCK_N, BLOCK_M], dtype=tl.float32)
    for g in range(K // 128):
        packed = tl.load(bytes_ + g * 64)
        s = tl.load(scales + g * N, mask=n < N, other=0.0).to(tl.float16)
        x_even = tl.load(even + g * 64)
        x_odd = tl.load(even + (K // 2 + g * 64))
        low, high = unpack_half(packed, DEVICE)
        acc = tl.dot(low * s[:, None], x_even, acc, out_dtype=tl.float32)
        acc = tl.dot(high * s[:, None], x_odd, acc, out_dtype=tl.float32)
    y = acc * tl.load(unit + m, mask=m < M, other=0.0)[None, :]
    if BIAS:
        y += shift[:, None]
    live = (n < N)[:, None] & (m < M)[None, :]
    target = out + m.to(tl.int64)[None, :] * N + n[:, None]
    if OUT == 2:
        y += tl.load(target, mask=live, other=0.0)
    tl.store(target, y, mask=live)


def gemm4_half(
    x: Halves,
    codes: Tensor,
    group_scale: Tensor,
    bias: Tensor | None,
    out: Tensor,
    *,
    kind: int,
    device: bool = True,
    pdl: bool = False,
) -> None:
    """Launch it.

    Args:
        x: M rows of K, a multiple of 128.
        codes: uint8 [N, K / 2] (`quamba.packing`).
        group_scale: of `quamba.kernels.triton_gemm4.turned`, float32 [K / 128, N].
        bias: float32 [N] or None.
        out: float32 [M, N].
        kind: `FLOAT` or `ADD`, as in `quamba.kernels.triton_gemv`.
        device: use the device's own instructions.
        pdl: overlap with the kernel before.
    """
    (rows, inner), columns = x.values.shape, len(codes)
    tile, warps, stages = default_tile(rows)
    gemm4_half_kernel[(triton.cdiv(rows, tile[0]) * triton.cdiv(columns, tile[1]),)](
        x.values,
        x.unit,
        codes,
        group_scale,
        x.unit if bias is None else bias,
        out,
        rows,
        columns,
        K=inner,
        BLOCK_M=tile[0],
        BLOCK_N=tile[1],
        GROUP_M=8,
        BIAS=bias is not None,
        OUT=kind,
        DEVICE=device,
        PDL=pdl,
        num_warps=warps,
        num_stages=stages,
        enable_fp_fusion=False,
        **({"launch_pdl": True} if pdl else {}),
    )


def default_tile(rows: int) -> tuple[tuple[int, int], int, int]:
    """Tile, warps and stages."""
    if rows <= 64:
        return (max(16, triton.next_power_of_2(rows)), 64), 4, 4
    return (128, 128), 8, 3


def gemm4_half_reference(
    x: Tensor, codes: Tensor, group_scale: Tensor, bias: Tensor | None, out: Tensor, *, kind: int
) -> None:
    """The definition, in plain PyTorch and float32; x float32 [M, K], arguments as `gemm4_half` otherwise."""
    gemv4_half_reference(x, codes, group_scale.t(), bias, out, kind=kind)


__all__ = ["default_tile", "gemm4_half", "gemm4_half_kernel", "gemm4_half_reference", "unpack_half"]
