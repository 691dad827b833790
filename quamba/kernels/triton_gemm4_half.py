# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""Rows of floats times a weight of 4-bit codes (W4A16), on the tensor cores in float16.

    y_mn = u_m sum_k (x_mk / u_m) (c_nk s_ng) (+ b_n)        g the group of 128 columns, u_m a power of two
    out = y, or residual += y

x / u and c s are rounded to float16, whatever their size, which is 71 dB from float32; sums are float32. The canonical
bytes of the weight hold columns 2j and 2j + 1: x comes as its even and its odd columns, so that they are read as they
lie. The weight is the left operand.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.triton_common import wait_before
from quamba.kernels.triton_gemv4_half import GROUP, gemv4_half_reference

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


@triton.jit
def halves_kernel(
    x,
    norm_weight,
    out,
    unit,
    x_stride,
    eps,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
    NORM: tl.constexpr,
    PDL: tl.constexpr,
):
    """One row; BLOCK is K / 2, made a power of two."""
    pairs = tl.arange(0, BLOCK)
    place = pairs[:, None] * 2 + tl.arange(0, 2)[None, :]
    row = tl.program_id(0).to(tl.int64)
    if NORM:
        gain = tl.load(norm_weight + place, mask=place < K, other=0.0)
    wait_before(PDL)
    values = tl.load(x + row * x_stride + place, mask=place < K, other=0.0).to(tl.float32)
    if NORM:
        squares = tl.sum(tl.sum(values * values, axis=1), axis=0)
        values = values * tl.rsqrt(squares / K + eps) * gain
    largest = tl.max(tl.max(tl.abs(values), axis=1), axis=0)
    # The power of two below the largest becomes 2^14.
    power = (largest.to(tl.int32, bitcast=True) & 0x7F800000).to(tl.float32, bitcast=True)
    u = tl.maximum(power, 1e-30) * (1.0 / 16384.0)
    even, odd = tl.split((values * (1.0 / u)).to(tl.float16))
    tl.store(out + row * K + pairs, even, mask=pairs * 2 < K)
    tl.store(out + row * K + K // 2 + pairs, odd, mask=pairs * 2 < K)
    tl.store(unit + row, u)


@dataclass(frozen=True, slots=True, eq=False)
class Halves:
    """Rows in float16: values [M, K], even columns before odd ones; unit float32 [M], what each row's are in."""

    values: Tensor
    unit: Tensor

    @classmethod
    def empty(cls, rows: int, columns: int, device: torch.device) -> "Halves":
        """Room for rows."""
        values = torch.empty(rows, columns, dtype=torch.float16, device=device)
        return cls(values, torch.empty(rows, device=device))


def halves(x: Tensor, out: Halves, *, norm: tuple[Tensor, float] | None = None, pdl: bool = False) -> None:
    """Launch it.

    Args:
        x: float32, float16 or bfloat16 [M, K], K even; rows may lie apart.
        out: what it fills.
        norm: the weight float32 [K] and eps of a norm before.
        pdl: overlap with the kernel before.
    """
    rows, columns = x.shape
    block = triton.next_power_of_2(columns // 2)
    weight, eps = (out.unit, 0.0) if norm is None else norm
    halves_kernel[(rows,)](
        x,
        weight,
        out.values,
        out.unit,
        x.stride(0),
        eps,
        K=columns,
        BLOCK=block,
        NORM=norm is not None,
        PDL=pdl,
        num_warps=4 if block <= 2048 else 8,
        enable_fp_fusion=False,
        **({"launch_pdl": True} if pdl else {}),
    )


def halves_reference(x: Tensor, out: Halves, *, norm: tuple[Tensor, float] | None = None) -> None:
    """The definition, in plain PyTorch; arguments as `halves`."""
    x = x.float()
    if norm is not None:
        x = torch.nn.functional.rms_norm(x, norm[0].shape, *norm)
    _, exponent = torch.frexp(x.abs().amax(1))
    out.unit.copy_(torch.ldexp(torch.ones_like(x[:, 0]), (exponent - 15).clamp(min=-113)))
    rounded = (x / out.unit[:, None]).half()
    out.values.copy_(torch.cat((rounded[:, 0::2], rounded[:, 1::2]), 1))


def gemm4_half(
    x: Halves,
    codes: Tensor,
    group_scale: Tensor,
    bias: Tensor | None,
    out: Tensor,
    *,
    kind: int,
    tile: tuple[int, int] | None = None,
    warps: int = 4,
    stages: int = 4,
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
        tile: rows and columns that a program takes; None: `default_tile` chooses, warps and stages too.
        warps: of a program.
        stages: groups on their way at once.
        device: use the device's own instructions.
        pdl: overlap with the kernel before.
    """
    (rows, inner), columns = x.values.shape, len(codes)
    if tile is None:
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


__all__ = [
    "GROUP",
    "Halves",
    "default_tile",
    "gemm4_half",
    "gemm4_half_kernel",
    "gemm4_half_reference",
    "halves",
    "halves_reference",
    "unpack_half",
]
