# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""Some rows of 8-bit codes times a weight of 4-bit codes (W4A8) on the tensor cores, as `triton_gemm` otherwise.

    W_nk = clamp(round(c_nk f_ng), -128, 127)    g the group of 128 columns

The integers are made of the canonical bytes on their way to the tensor cores: what is read is half of what 8-bit
weights are. The weight is the left operand.
"""

import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.triton_common import round_codes, wait_before
from quamba.kernels.triton_expand4 import expand4_reference, unpack_integers
from quamba.kernels.triton_gemv import gemv_reference


@triton.jit
def gemm4_kernel(
    x,
    w,
    factors,
    scale,
    bias,
    out,
    M,
    N,
    x_stride,
    K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BIAS: tl.constexpr,
    OUT: tl.constexpr,
    DEVICE: tl.constexpr,
    PDL: tl.constexpr,
):
    """One tile of out, transposed."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    half = tl.arange(0, 64)
    k = tl.arange(0, 128)
    # Rows beyond the last are read as row 0, and not written.
    n_row = tl.where(n < N, n, 0).to(tl.int64)
    packed_rows = w + n_row[:, None] * (K // 2) + half[None, :]
    # A group's factors lie side by side: they are brought ahead of time as the codes are.
    factor_rows = factors + n
    x_rows = x + tl.where(m < M, m, 0).to(tl.int64)[None, :] * x_stride + k[:, None]
    factor = tl.load(scale + n_row)
    if BIAS:
        shift = tl.load(bias + n_row)
    wait_before(PDL)
    acc = tl.zeros([BLOCK_N, BLOCK_M], dtype=tl.int32)
    for g in range(K // 128):
        packed = tl.load(packed_rows + g * 64)
        f = tl.load(factor_rows + g * N, mask=n < N, other=0.0).to(tl.float16)
        b = tl.load(x_rows + g * 128)
        low, high = unpack_integers(packed, tl.broadcast_to(f[:, None], [BLOCK_N, 64]), DEVICE)
        a = tl.reshape(tl.join(low, high), [BLOCK_N, 128])
        acc = tl.dot(a, b, acc, out_dtype=tl.int32)
    y = acc.to(tl.float32) * factor[:, None]
    if BIAS:
        y += shift[:, None]
    live = (n < N)[:, None] & (m < M)[None, :]
    target = out + m.to(tl.int64)[None, :] * N + n[:, None]
    if OUT == 0:
        tl.store(target, round_codes(y).to(tl.int8), mask=live)
    elif OUT == 1:
        tl.store(target, y, mask=live)
    else:
        tl.store(target, tl.load(target, mask=live, other=0.0) + y, mask=live)


def gemm4(
    x: Tensor,
    codes: Tensor,
    factors: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    out: Tensor,
    *,
    kind: int,
    tile: tuple[int, int] | None = None,
    device: bool = True,
    pdl: bool = False,
) -> None:
    """Launch it.

    Args:
        x: int8 [M, K], K a multiple of 128; rows may lie apart.
        codes: uint8 [N, K / 2] (`quamba.packing`).
        factors: of `turned` [K / 128, N].
        scale: float32 [N], all other scales of the product in one.
        bias: float32 [N] in units of the output, or None.
        out: int8 (`CODES`) or float32 (`FLOAT`, `ADD`) [M, N].
        kind: what becomes of the product, as in `quamba.kernels.triton_gemv`.
        tile: rows and columns that a program takes; None: `default_tile` chooses.
        device: use the device's own instructions.
        pdl: overlap with the kernel before.
    """
    (rows, inner), columns = x.shape, len(codes)
    tile = tile or default_tile(rows, columns)
    gemm4_kernel[(triton.cdiv(columns, tile[1]), triton.cdiv(rows, tile[0]))](
        x,
        codes,
        factors,
        scale,
        scale if bias is None else bias,
        out,
        rows,
        columns,
        x.stride(0),
        K=inner,
        BLOCK_M=tile[0],
        BLOCK_N=tile[1],
        BIAS=bias is not None,
        OUT=kind,
        DEVICE=device,
        PDL=pdl,
        num_warps=4,
        num_stages=4,
        enable_fp_fusion=False,
        **({"launch_pdl": True} if pdl else {}),
    )


def turned(factors: Tensor) -> Tensor:
    """A weight's groups' factors or scales, float16 [N, K / 128], as products of many rows read them.

    Returns:
        float32 [K / 128, N]: what is brought ahead of time comes four bytes at a time.
    """
    return factors.t().float().contiguous()


def default_tile(rows: int, columns: int) -> tuple[int, int]:
    """Rows and columns that a program takes."""
    block_m = min(128, max(16, triton.next_power_of_2(rows)))
    return block_m, 64 if columns >= 4096 or rows > 64 else 32


def gemm4_reference(
    x: Tensor, codes: Tensor, factors: Tensor, scale: Tensor, bias: Tensor | None, out: Tensor, *, kind: int
) -> None:
    """The definition, in plain PyTorch; arguments as `gemm4`."""
    gemv_reference(x, expand4_reference(codes, factors.t().half(), integers=True), scale, bias, out, kind=kind)


__all__ = ["default_tile", "gemm4", "gemm4_kernel", "gemm4_reference", "turned"]
