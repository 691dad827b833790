# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""Behind the heads' part of a step: the norm's mean over a group of heads, the rotation across heads, codes.

    X [R, P], a row a head:   out = q8(L^T (X * rsqrt(mean squares of the row's group + eps)); s)

A program owns a few columns of X and all its rows.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.triton_common import round_codes, wait_before
from quamba.qtypes import QMAX, QMIN


@triton.jit
def join_kernel(
    x,
    squares,
    left,
    scale,
    out,
    eps,
    R: tl.constexpr,
    P: tl.constexpr,
    G: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    NORM: tl.constexpr,
    ROTATE: tl.constexpr,
    PDL: tl.constexpr,
):
    """Columns BLOCK * program_id(0).. of batch row program_id(1)."""
    r = tl.arange(0, ROWS)
    columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.program_id(1)
    live = (r < R)[:, None] & (columns < P)[None, :]
    place = row * (R * P) + r[:, None] * P + columns[None, :]
    if ROTATE:
        # Transposed on the way in.
        matrix = tl.load(left + r[None, :] * R + r[:, None], mask=(r < R)[:, None] & (r < R)[None, :], other=0.0)
    wait_before(PDL)
    v = tl.load(x + place, mask=live, other=0.0)
    s = tl.load(scale)
    if NORM:
        sums = tl.load(squares + row * R + r, mask=r < R, other=0.0)
        if G == 1:
            v = v * tl.rsqrt(tl.sum(sums, axis=0) / (R * P) + eps)
        else:
            same = (r // (R // G))[:, None] == (r // (R // G))[None, :]
            total = tl.sum(tl.where(same, tl.broadcast_to(sums[None, :], [ROWS, ROWS]), 0.0), axis=1)
            v = v * tl.rsqrt(total / (R * P // G) + eps)[:, None]
    v = tl.math.div_rn(v, s)
    if ROTATE:
        # Two halves hold 22 bits of v; what is cut off here saturates behind the rotation too.
        v = tl.minimum(tl.maximum(v, -60000.0), 60000.0)
        high = v.to(tl.float16)
        v = tl.dot(matrix, (v - high.to(tl.float32)).to(tl.float16), tl.dot(matrix, high))
    tl.store(out + place, round_codes(v).to(tl.int8), mask=live)


def join(
    x: Tensor,
    squares: Tensor | None,
    left: Tensor | None,
    scale: Tensor,
    out: Tensor,
    *,
    rows: int,
    groups: int = 1,
    eps: float = 0.0,
    warps: int = 4,
    pdl: bool = False,
) -> None:
    """Launch it.

    Args:
        x: float32 [Bt, R P].
        squares: float32 [Bt, R]; None without a norm.
        left: of +-1, float16 [R, R], the transform's factor across rows; None without rotation.
        scale: float32, of the codes.
        out: int8 [Bt, R P].
        rows: R.
        groups: G, of rows that share a mean.
        eps: added to the mean.
        warps: of a program.
        pdl: overlap with the kernel before.
    """
    columns = x.shape[1] // rows
    join_kernel[(triton.cdiv(columns, 16), len(x))](
        x,
        x if squares is None else squares,
        x if left is None else left,
        scale,
        out,
        eps,
        R=rows,
        P=columns,
        G=groups,
        ROWS=max(16, triton.next_power_of_2(rows)),
        BLOCK=16,
        NORM=squares is not None,
        ROTATE=left is not None,
        PDL=pdl,
        num_warps=warps,
        enable_fp_fusion=False,
        **({"launch_pdl": True} if pdl else {}),
    )


def join_reference(
    x: Tensor,
    squares: Tensor | None,
    left: Tensor | None,
    scale: Tensor,
    out: Tensor,
    *,
    rows: int,
    groups: int = 1,
    eps: float = 0.0,
) -> None:
    """The definition, in plain PyTorch; arguments as `join`."""
    v = x.view(len(x), rows, -1)
    if squares is not None:
        mean = squares.view(len(x), groups, -1).sum(-1) / (x.shape[1] // groups)
        v = v * torch.rsqrt(mean + eps).repeat_interleave(rows // groups, 1)[..., None]
    if left is not None:
        v = left.float().t() @ v
    out.copy_((v / scale).round().clamp(QMIN, QMAX).flatten(1))


__all__ = ["join", "join_kernel", "join_reference"]
