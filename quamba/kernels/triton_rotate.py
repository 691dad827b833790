# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""Behind the recurrence of a prompt: the norm's mean over a group of channels, the rotation of them all, codes.

    X [R, P'], a token's channels in rows:  out = q8(L^T (X * rsqrt(mean squares of the row's group + eps)) M; s)

with L [R, R] and M [P', P'] of +-1, the two factors of a Hadamard transform. A program takes whole tokens, as many as
128 rows hold, and multiplies them at once: by L on a diagonal. What the tensor cores read is rounded to float16.
For few rows of a batch: `quamba.kernels.triton_join`.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.triton_common import round_codes, wait_before
from quamba.kernels.triton_join import join_reference

# Rows of channels that a program multiplies at once.
ROWS = 128


@triton.jit
def _half(v):
    """float16; what is cut off saturates behind the rotation too."""
    return tl.minimum(tl.maximum(v, -60000.0), 60000.0).to(tl.float16)


@triton.jit
def rotate_kernel(
    x,
    sizes,
    squares,
    left,
    right,
    scale,
    out,
    eps,
    M,
    R: tl.constexpr,
    COLUMNS: tl.constexpr,
    H: tl.constexpr,
    G: tl.constexpr,
    TOKENS: tl.constexpr,
    MEANS: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCKS: tl.constexpr,
    ROWS: tl.constexpr,
    STEPS: tl.constexpr,
    SIZES: tl.constexpr,
    NORM: tl.constexpr,
    ROTATE: tl.constexpr,
    PDL: tl.constexpr,
):
    """STEPS times TOKENS tokens from STEPS * TOKENS * program_id(0) on."""
    E: tl.constexpr = R * COLUMNS
    WIDTH: tl.constexpr = COLUMNS // BLOCKS
    i, p = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    if ROTATE:
        across = tl.load(left + i[:, None] * ROWS + tl.arange(0, ROWS)[None, :])
        inside = tl.load(right + p[:, None] * COLUMNS + p[None, :])
    inverse = 1.0 / tl.load(scale)
    wait_before(PDL)
    for step in range(STEPS):
        first = (tl.program_id(0) * STEPS + step) * TOKENS
        live = (i < TOKENS * R) & (i // R < M - first)
        base = first.to(tl.int64) * E
        blocks, w = tl.arange(0, BLOCKS), tl.arange(0, WIDTH)
        at = i[:, None, None] * COLUMNS + blocks[None, :, None] * WIDTH + w[None, None, :]
        v = tl.load(x + base + at, mask=live[:, None, None], other=0.0).to(tl.float32)
        factor = tl.full([ROWS], 1.0, dtype=tl.float32) * inverse
        if NORM:
            # One mean for each token and group, then for each row its own.
            m, h = tl.arange(0, MEANS), tl.arange(0, HEADS)
            inner = (m < TOKENS * G) & (m // G < M - first)
            sums = tl.load(
                squares + first.to(tl.int64) * H + m[:, None] * (H // G) + h[None, :],
                mask=inner[:, None] & (h < H // G)[None, :],
                other=0.0,
            )
            rstd = tl.rsqrt(tl.sum(sums, axis=1) / (E // G) + eps)
            own = (i // (R // G))[:, None] == m[None, :]
            factor *= tl.sum(tl.where(own, rstd[None, :], 0.0), axis=1)
        if SIZES:
            # The heads that a row has a share of, or the one that it is a share of.
            places = (i[:, None] * COLUMNS + blocks[None, :] * WIDTH) // (E // H)
            size = tl.load(sizes + first.to(tl.int64) * H + places, mask=live[:, None], other=0.0)
            v *= (size * factor[:, None])[:, :, None]
        else:
            # Behind a row's end nothing may have been written: no number, times 0, would spread to other tokens.
            v = tl.where(v == v, v * factor[:, None, None], 0.0)
        v = tl.reshape(v, (ROWS, COLUMNS))
        if ROTATE:
            v = tl.dot(_half(v), inside)
            v = tl.dot(across, _half(v))
        place = out + base + i[:, None] * COLUMNS + p[None, :]
        tl.store(place, round_codes(v).to(tl.int8), mask=live[:, None])


@dataclass(frozen=True, slots=True)
class Factors:
    """The two factors as a program multiplies by them.

    Attributes:
        tokens: that a program takes at once.
        rows: R.
        matrices: L^T for each token, on a diagonal, float16 [128, 128]; M, float16 [P', P']; None: no rotation.
    """

    tokens: int
    rows: int
    matrices: tuple[Tensor, Tensor] | None

    @classmethod
    def of(cls, factors: tuple[Tensor, Tensor] | None, rows: int, columns: int) -> "Factors | None":
        """Of L^T [R, R] and M [P', P'], of +-1; None: there are more rows than a program takes, or odd columns."""
        if rows > ROWS or columns.bit_count() != 1 or not 16 <= columns <= 256:
            return None
        tokens = ROWS // rows
        if factors is None:
            return cls(tokens, rows, None)
        left, right = factors
        diagonal = torch.zeros(ROWS, ROWS, dtype=torch.float16, device=left.device)
        diagonal[: tokens * rows, : tokens * rows] = torch.kron(torch.eye(tokens, device=left.device), left.float())
        return cls(tokens, rows, (diagonal, right.contiguous()))


def rotate(
    x: Tensor,
    sizes: Tensor | None,
    squares: Tensor | None,
    factors: Factors,
    scale: Tensor,
    out: Tensor,
    *,
    groups: int = 1,
    eps: float = 0.0,
    steps: int = 4,
    warps: int = 8,
    pdl: bool = False,
) -> None:
    """Launch it.

    Args:
        x: float32 or float16 [M, E].
        sizes: what each head's share of x is to be multiplied with, float32 [M, H]; None: as it is.
        squares: sums of squares of each head, float32 [M, H]; None without a norm.
        factors: of the rotation.
        scale: float32, of the codes.
        out: int8 [M, E].
        groups: G, of heads that share a mean; each has R / G rows.
        eps: added to the mean.
        steps: that many times a program takes its tokens.
        warps: of a program.
        pdl: overlap with the kernel before.
    """
    columns = x.shape[1] // factors.rows
    given = squares if squares is not None else sizes
    heads = 1 if given is None else given.shape[1]
    left, right = factors.matrices or (x, x)
    rotate_kernel[(triton.cdiv(len(x), factors.tokens * steps),)](
        x,
        x if sizes is None else sizes,
        x if squares is None else squares,
        left,
        right,
        scale,
        out,
        eps,
        len(x),
        R=factors.rows,
        COLUMNS=columns,
        H=heads,
        G=groups,
        TOKENS=factors.tokens,
        MEANS=triton.next_power_of_2(factors.tokens * groups),
        HEADS=triton.next_power_of_2(max(1, heads // groups)),
        BLOCKS=1 if sizes is None else max(1, columns * heads // x.shape[1]),
        ROWS=ROWS,
        STEPS=steps,
        SIZES=sizes is not None,
        NORM=squares is not None,
        ROTATE=factors.matrices is not None,
        PDL=pdl,
        num_warps=warps,
        **({"launch_pdl": True} if pdl else {}),
    )


# The same definition as for few rows, of x times its sizes.
rotate_reference = join_reference

__all__ = ["ROWS", "Factors", "rotate", "rotate_kernel", "rotate_reference"]
