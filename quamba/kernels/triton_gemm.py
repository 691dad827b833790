# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""Many rows times an 8-bit weight on the tensor cores, with the scales behind it in the same launch.

    a_mn = sum_k x_mk W_nk (32-bit integers)
    y_mn = a_mn s_n (+ b_n)        out = q8 codes of y, or y in float32, or residual += y

Between some rows and a weight the weight is the left operand: the tensor cores take few columns, but not few rows.
"""

import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.hopper import multiplied
from quamba.kernels.triton_common import round_codes, wait_before
from quamba.kernels.triton_gemv import gemv_reference


@triton.jit
def gemm_kernel(
    x,
    w,
    scale,
    bias,
    out,
    M,
    N,
    x_stride,
    K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
    SWAP: tl.constexpr,
    EVEN: tl.constexpr,
    BIAS: tl.constexpr,
    OUT: tl.constexpr,
    PDL: tl.constexpr,
):
    """One tile of out; programs go through GROUP tiles of rows before the next columns, and find them in the cache."""
    blocks_m, blocks_n = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    program = tl.program_id(0)
    first = program // (GROUP * blocks_n) * GROUP
    size = tl.minimum(blocks_m - first, GROUP)
    m = (first + program % (GROUP * blocks_n) % size) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = program % (GROUP * blocks_n) // size * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    # Rows beyond the last are read as row 0, and not written.
    x_rows = x + tl.where(m < M, m, 0).to(tl.int64) * x_stride
    w_rows = w + tl.where(n < N, n, 0).to(tl.int64) * K
    factor = tl.load(scale + n, mask=n < N, other=0.0)
    if BIAS:
        shift = tl.load(bias + n, mask=n < N, other=0.0)
    wait_before(PDL)
    if SWAP:
        acc = tl.zeros([BLOCK_N, BLOCK_M], dtype=tl.int32)
        for start in range(0, K, BLOCK_K):
            if EVEN:
                a = tl.load(w_rows[:, None] + (start + k)[None, :])
                b = tl.load(x_rows[None, :] + (start + k)[:, None])
            else:
                a = tl.load(w_rows[:, None] + (start + k)[None, :], mask=(start + k < K)[None, :], other=0)
                b = tl.load(x_rows[None, :] + (start + k)[:, None], mask=(start + k < K)[:, None], other=0)
            acc = tl.dot(a, b, acc, out_dtype=tl.int32)
        y = acc.to(tl.float32) * factor[:, None]
        if BIAS:
            y += shift[:, None]
        at_m, at_n = m.to(tl.int64)[None, :], n[:, None]
    else:
        acc = tl.zeros([BLOCK_M, BLOCK_N], dtype=tl.int32)
        for start in range(0, K, BLOCK_K):
            if EVEN:
                a = tl.load(x_rows[:, None] + (start + k)[None, :])
                b = tl.load(w_rows[None, :] + (start + k)[:, None])
            else:
                a = tl.load(x_rows[:, None] + (start + k)[None, :], mask=(start + k < K)[None, :], other=0)
                b = tl.load(w_rows[None, :] + (start + k)[:, None], mask=(start + k < K)[:, None], other=0)
            acc = tl.dot(a, b, acc, out_dtype=tl.int32)
        y = acc.to(tl.float32) * factor[None, :]
        if BIAS:
            y += shift[None, :]
        at_m, at_n = m.to(tl.int64)[:, None], n[None, :]
    live = (at_m < M) & (at_n < N)
    target = out + at_m * N + at_n
    if OUT == 0:
        tl.store(target, round_codes(y).to(tl.int8), mask=live)
    elif OUT == 1:
        tl.store(target, y, mask=live)
    else:
        tl.store(target, tl.load(target, mask=live, other=0.0) + y, mask=live)


def gemm(
    x: Tensor,
    w: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    out: Tensor,
    *,
    kind: int,
    tile: tuple[int, int, int] | None = None,
    warps: int = 4,
    stages: int = 4,
    pdl: bool = False,
    workspace: Tensor | None = None,
) -> None:
    """Launch it, or on Hopper a kernel of its own for the same (`quamba.kernels.hopper`), unless a tile is given.

    Args:
        x: int8 [M, K].
        w: int8 [N, K], K a multiple of 16.
        scale: float32 [N], all scales of the product in one.
        bias: float32 [N] in units of the output, or None.
        out: int8 (`CODES`) or float32 (`FLOAT`, `ADD`) [M, N].
        kind: what becomes of y, as in `quamba.kernels.triton_gemv`.
        tile: rows, columns and inner dimension that a program takes at once; None: `default_tile` chooses.
        warps: of a program.
        stages: tiles on their way at once.
        pdl: overlap with the kernel before.
        workspace: where programs may leave parts of sums (`quamba.kernels.hopper.new_workspace`); launches that can
            run at the same time need different ones.
    """
    if tile is None and multiplied(x, w, scale, bias, out, kind=kind, pdl=pdl, workspace=workspace):
        return
    (rows, inner), columns = x.shape, len(w)
    if tile is None:
        tile, warps, stages = default_tile(rows, columns)
    grid = triton.cdiv(rows, tile[0]) * triton.cdiv(columns, tile[1])
    gemm_kernel[(grid,)](
        x,
        w,
        scale,
        scale if bias is None else bias,
        out,
        rows,
        columns,
        x.stride(0),
        K=inner,
        BLOCK_M=tile[0],
        BLOCK_N=tile[1],
        BLOCK_K=tile[2],
        GROUP=8,
        SWAP=tile[0] < 64,
        EVEN=inner % tile[2] == 0,
        BIAS=bias is not None,
        OUT=kind,
        PDL=pdl,
        num_warps=warps,
        num_stages=stages,
        enable_fp_fusion=False,
        **({"launch_pdl": True} if pdl else {}),
    )


def default_tile(rows: int, columns: int) -> tuple[tuple[int, int, int], int, int]:
    """Tile, warps and stages.

    Few rows: the weight is read once, much of it at a time. Many: squares. (Measured on an H100.)
    """
    if rows <= 128:
        block_n = 64
        while block_n > 16 and columns < (32 if rows <= 32 else 48) * block_n:
            block_n //= 2
        return (max(16, triton.next_power_of_2(rows)), block_n, 256), 4, 4
    return (128, 128 if columns >= 2048 else 64, 128), 8, 3


# The same definition, whatever the number of rows.
gemm_reference = gemv_reference

__all__ = ["default_tile", "gemm", "gemm_kernel", "gemm_reference"]
