# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, no-untyped-call"
# (What Triton compiles has no Python types.)
"""Behind the recurrence of a step: the norm's mean over a group of channels, the rotation of them all, codes or floats.

    X [R, P], the channels in rows:   out = q8(L^T (X * rsqrt(mean squares of the row's group + eps)) M; s)

with L [R, R] and M [P, P] of +-1, the two factors of a Hadamard transform. A program owns a few rows and columns of
what comes out.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.triton_common import to_codes, wait_before
from quamba.kernels.triton_split import NEIGHBOURS, Split, split_reference, store_split
from quamba.qtypes import QMAX, QMIN


@triton.jit
def _halves(v):
    """Two halves that hold 22 bits of v together; what is cut off saturates behind the rotation too."""
    v = tl.minimum(tl.maximum(v, -60000.0), 60000.0)
    high = v.to(tl.float16)
    return high, (v - high.to(tl.float32)).to(tl.float16)


@triton.jit
def join_kernel(
    x,
    squares,
    left,
    right,
    scale,
    out,
    cleared,
    cleared_size,
    eps,
    R: tl.constexpr,
    P: tl.constexpr,
    G: tl.constexpr,
    SUMS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SUMS_BLOCK: tl.constexpr,
    ROW_BLOCK: tl.constexpr,
    COLUMN_BLOCK: tl.constexpr,
    NORM: tl.constexpr,
    ROTATE: tl.constexpr,
    CLEAR: tl.constexpr,
    FLOATS: tl.constexpr,
    BYTES: tl.constexpr,
    PDL: tl.constexpr,
):
    """Columns COLUMN_BLOCK * program_id(0).., rows ROW_BLOCK * program_id(1).. of batch row program_id(2)."""
    to_r = tl.program_id(1) * ROW_BLOCK + tl.arange(0, ROW_BLOCK)
    to_p = tl.program_id(0) * COLUMN_BLOCK + tl.arange(0, COLUMN_BLOCK)
    row = tl.program_id(2)
    if ROTATE:
        r, p = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
        across = tl.load(left + to_r[:, None] * R + r[None, :], mask=(to_r < R)[:, None] & (r < R)[None, :], other=0.0)
        inside = tl.load(right + p[:, None] * P + to_p[None, :], mask=(p < P)[:, None] & (to_p < P)[None, :], other=0.0)
    else:
        r, p = to_r, to_p
    s = 1.0
    if not FLOATS:
        s = tl.load(scale)
    inverse = 1.0 / s
    wait_before(PDL)
    if CLEAR > 0:  # noqa: SIM102  # Known when it is compiled, as the other is not.
        if (tl.program_id(0) == 0) & (tl.program_id(1) == 0):
            i = tl.arange(0, CLEAR)
            tl.store(cleared + row * cleared_size + i, tl.zeros([CLEAR], dtype=tl.int32), mask=i < cleared_size)
    v = tl.load(x + row * (R * P) + r[:, None] * P + p[None, :], mask=(r < R)[:, None] & (p < P)[None, :], other=0.0)
    if NORM:
        i = tl.arange(0, SUMS_BLOCK)
        sums = tl.load(squares + row * SUMS + i, mask=i < SUMS, other=0.0)
        if G == 1:
            rstd = tl.rsqrt(tl.sum(sums, axis=0) / (R * P) + eps)
        else:
            same = (r // (R // G))[:, None] == (i // (SUMS // G))[None, :]
            total = tl.sum(tl.where(same, sums[None, :], 0.0), axis=1)
            rstd = tl.rsqrt(total / (R * P // G) + eps)[:, None]
        if ROTATE:
            inverse = inverse * rstd
        else:
            v = v * rstd
    if ROTATE:
        v *= inverse
        power = 1.0
        if FLOATS:
            # Codes saturate, floats must not: the largest becomes 1 to 2, which is exact.
            largest = tl.max(tl.max(tl.abs(v), axis=1), axis=0)
            power = (largest.to(tl.int32, bitcast=True) & 0x7F800000).to(tl.float32, bitcast=True)
            power = tl.maximum(power, 7.888609052210118e-31)
            v *= 1.0 / power
        high, low = _halves(v)
        high, low = _halves(tl.dot(low, inside, tl.dot(high, inside)))
        v = tl.dot(across, low, tl.dot(across, high))
        if FLOATS:
            v *= power
    elif not FLOATS:
        v = tl.math.div_rn(v, s)
    place = row * (R * P) + to_r[:, None] * P + to_p[None, :]
    live = (to_r < R)[:, None] & (to_p < P)[None, :]
    if BYTES:
        # 32 columns, which share a unit; `scale` has the units.
        units = to_r * (P // 32) + tl.program_id(0)
        values = tl.reshape(v, [ROW_BLOCK, 4, 4, 2])
        store_split(out + row * (R * P // 2), scale + row * (R * P // 32), values, units, R * P // 8)
    elif FLOATS:
        tl.store(out + place, v, mask=live)
    else:
        tl.store(out + place, to_codes(v), mask=live)


def join(
    x: Tensor,
    squares: Tensor | None,
    factors: tuple[Tensor, Tensor] | None,
    scale: Tensor | None,
    out: Tensor | Split,
    *,
    rows: int,
    groups: int = 1,
    eps: float = 0.0,
    row_block: int = 16,
    warps: int = 8,
    pdl: bool = False,
    clear: Tensor | None = None,
) -> None:
    """Launch it.

    Args:
        x: float32 [Bt, R P].
        squares: float32 [Bt, sums], of equally many channels each, in their order; None without a norm.
        factors: L^T and M, of +-1, float16 [R, R] and [P, P]; None without rotation.
        scale: float32, of the codes; None for floats.
        out: int8 [Bt, R P], or float32, or the floats as bytes, where P is a multiple of 32.
        rows: R.
        groups: G, of channels that share a mean; each has R / G rows.
        eps: added to the mean.
        row_block: rows that a program gives, at least 16 and a power of two; of those that there are.
        warps: of a program.
        pdl: overlap with the kernel before.
        clear: sums that are to be zeros for the next layer, int32 [Bt, J].
    """
    columns = x.shape[1] // rows
    left, right = factors or (x, x)
    row_block, column_block = min(row_block, max(16, triton.next_power_of_2(rows))), 16 if factors else 64
    split = out if isinstance(out, Split) else None
    target, factor = (out, scale) if not isinstance(out, Split) else (out.words, out.scale)
    column_block = column_block if split is None else NEIGHBOURS
    sums = 1 if squares is None else squares.shape[1]
    join_kernel[(triton.cdiv(columns, column_block), triton.cdiv(rows, row_block), len(x))](
        x,
        x if squares is None else squares,
        left,
        right,
        x if factor is None else factor,
        target,
        target if clear is None else clear,
        0 if clear is None else clear.shape[1],
        eps,
        R=rows,
        P=columns,
        G=groups,
        SUMS=sums,
        ROWS=max(16, triton.next_power_of_2(rows)),
        COLUMNS=max(16, triton.next_power_of_2(columns)),
        SUMS_BLOCK=triton.next_power_of_2(sums),
        ROW_BLOCK=row_block,
        COLUMN_BLOCK=column_block,
        NORM=squares is not None,
        ROTATE=factors is not None,
        CLEAR=0 if clear is None else triton.next_power_of_2(clear.shape[1]),
        FLOATS=scale is None,
        BYTES=split is not None,
        PDL=pdl,
        num_warps=warps,
        enable_fp_fusion=False,
        **({"launch_pdl": True} if pdl else {}),
    )


def join_reference(
    x: Tensor,
    squares: Tensor | None,
    factors: tuple[Tensor, Tensor] | None,
    scale: Tensor | None,
    out: Tensor | Split,
    *,
    rows: int,
    groups: int = 1,
    eps: float = 0.0,
    clear: Tensor | None = None,
) -> None:
    """The definition, in plain PyTorch; arguments as `join`."""
    if clear is not None:
        clear.zero_()
    v = x.view(len(x), rows, -1)
    if squares is not None:
        mean = squares.view(len(x), groups, -1).sum(-1) / (x.shape[1] // groups)
        v = v * torch.rsqrt(mean + eps).repeat_interleave(rows // groups, 1)[..., None]
    if factors is not None:
        left, right = (factor.float() for factor in factors)
        v = left @ v @ right
    if isinstance(out, Split):
        split_reference(v.flatten(1), out)
    else:
        out.copy_((v if scale is None else (v / scale).round().clamp(QMIN, QMAX)).flatten(1))


__all__ = ["join", "join_kernel", "join_reference"]
