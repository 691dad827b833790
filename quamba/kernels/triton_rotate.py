# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""Behind the recurrence of a prompt: the gate, the norm, the rotation of all channels, codes.

    X [R, P'], a token's channels in rows: v = y SiLU(z), times rsqrt(mean v^2 of its group of rows + eps) w
    out = q8(L^T v M; s)        (where the norm comes first, the mean is of y^2; without one it is 1)

with L [R, R] and M [P', P'] of +-1, the two factors of a Hadamard transform. A program takes whole tokens, as many as
its rows hold, and multiplies them at once: by L on a diagonal. What the tensor cores read is rounded to float16.
For few rows of a batch: `quamba.kernels.triton_join`.
"""

import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.gated_rotation import NO_NORM, Gate
from quamba.kernels.rotation_factors import Factors
from quamba.kernels.triton_common import int8_codes, tanh, wait_before

_MANY_TOKENS = 4096
# Means that are taken one after another.
FEW = tl.constexpr(4)


@triton.jit
def _half(v, BOUNDED: tl.constexpr):
    """float16; what is cut off saturates behind the rotation too."""
    return v.to(tl.float16) if BOUNDED else tl.minimum(tl.maximum(v, -60000.0), 60000.0).to(tl.float16)


@triton.jit(do_not_specialize=["M"])
def rotate_kernel(
    x,
    projected,
    root,
    z_half,
    weight,
    heads,
    places,
    left,
    right,
    scale,
    out,
    eps,
    M,
    W: tl.constexpr,
    R: tl.constexpr,
    COLUMNS: tl.constexpr,
    P: tl.constexpr,
    G: tl.constexpr,
    TOKENS: tl.constexpr,
    MEANS: tl.constexpr,
    BLOCKS: tl.constexpr,
    ROWS: tl.constexpr,
    STEPS: tl.constexpr,
    GATE: tl.constexpr,
    NORM: tl.constexpr,
    ALIKE: tl.constexpr,
    BOUNDED: tl.constexpr,
    ORDERED: tl.constexpr,
    ROTATE: tl.constexpr,
    DEVICE: tl.constexpr,
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
    # A row's blocks are heads, or it lies within one.
    token, first = i // R, (i % R)[:, None] * COLUMNS + tl.arange(0, BLOCKS)[None, :] * WIDTH
    channel = first[:, :, None] + tl.arange(0, WIDTH)[None, None, :]
    at = token[:, None, None] * E + channel
    if GATE:
        head = first // P
        if ORDERED:
            z_at = (tl.load(heads + head) * P + first % P)[:, :, None] + tl.arange(0, WIDTH)[None, None, :]
        else:
            z_at = tl.load(places + channel)
        z_at += token[:, None, None] * W
    wait_before(PDL)
    for step in range(STEPS):
        start = (tl.program_id(0) * STEPS + step) * TOKENS
        live = (i < TOKENS * R) & (token < M - start)
        v = tl.load(x + start.to(tl.int64) * E + at, mask=live[:, None, None], other=0.0).to(tl.float32)
        if GATE:
            z = tl.load(projected + start.to(tl.int64) * W + z_at, mask=live[:, None, None], other=0).to(tl.float32)
            # z (1 + tanh(z s / 2)) is twice SiLU(z s) / s.
            half = tl.load(z_half + head)[:, :, None] if ALIKE else tl.load(z_half + channel)
            gated = v * (z + z * tanh(z * half, DEVICE))
            factor = tl.full([ROWS], 1.0, dtype=tl.float32) * inverse
            if NORM > 0:
                normed = gated if NORM == 1 else v
                if ALIKE:
                    r = tl.load(root + head)
                    total = tl.sum(tl.sum(normed * normed, axis=2) * (r * r), axis=1)
                else:
                    normed *= tl.load(root + channel)
                    total = tl.sum(tl.sum(normed * normed, axis=2), axis=1)
                if TOKENS * G == 1:
                    factor *= tl.rsqrt(tl.sum(total, axis=0) / E + eps)
                elif TOKENS * G <= FEW:
                    for mean in tl.static_range(TOKENS * G):
                        own = i // (R // G) == mean
                        rstd = tl.rsqrt(tl.sum(tl.where(own, total, 0.0), axis=0) / (E // G) + eps)
                        factor *= tl.where(own, rstd, 1.0)
                else:
                    # Of rows of a token and group, and for each row of it.
                    own = (i // (R // G))[:, None] == tl.arange(0, MEANS)[None, :]
                    mean = tl.sum(tl.where(own, total[:, None], 0.0), axis=0) / (E // G)
                    factor *= tl.sum(tl.where(own, tl.rsqrt(mean + eps)[None, :], 0.0), axis=1)
            v = gated * tl.load(weight + channel) * factor[:, None, None]
        else:
            v *= inverse
        v = tl.reshape(v, (ROWS, COLUMNS))
        if ROTATE:
            v = tl.dot(_half(v, BOUNDED), inside)
            v = tl.dot(across, _half(v, BOUNDED))
        place = out + start.to(tl.int64) * E + i[:, None] * COLUMNS + p[None, :]
        tl.store(place, int8_codes(v, DEVICE), mask=live[:, None])


def rotate(
    x: Tensor,
    projected: Tensor | None,
    gate: Gate | None,
    factors: Factors,
    scale: Tensor,
    out: Tensor,
    *,
    steps: int | None = None,
    device: bool = True,
    pdl: bool = False,
) -> None:
    """Launch it.

    Args:
        x: y, float32 or float16 [M, E].
        projected: codes z in the first E columns, int8 [M, W]; None without a gate.
        gate: the gate and its norm; None: x is rotated as it is.
        factors: of the rotation.
        scale: float32, of the codes.
        out: int8 [M, E].
        steps: that many times a program takes its tokens; None: by their number.
        device: use the device's own instructions; false under the interpreter.
        pdl: overlap with the kernel before.
    """
    columns = x.shape[1] // factors.token_rows
    left, right = factors.matrices or (x, x)
    groups, inner = 1, columns
    if gate is not None:
        groups, inner = gate.groups, x.shape[1] // len(gate.heads)
    means = factors.tokens * groups
    # Many tokens: a program reads the factors once for some of them, and has more registers. (Measured on an H100.)
    many = len(x) >= _MANY_TOKENS
    steps = steps or (4 if many else 1)
    rotate_kernel[(triton.cdiv(len(x), factors.tokens * steps),)](
        x,
        x if projected is None else projected,
        scale if gate is None else gate.root,
        scale if gate is None else gate.z_half,
        scale if gate is None else gate.weight,
        scale if gate is None else gate.heads,
        scale if gate is None else gate.places,
        left,
        right,
        scale,
        out,
        0.0 if gate is None else gate.eps,
        len(x),
        W=0 if projected is None else projected.shape[1],
        R=factors.token_rows,
        COLUMNS=columns,
        P=inner,
        G=groups,
        TOKENS=factors.tokens,
        MEANS=triton.next_power_of_2(means),
        BLOCKS=max(1, columns // inner),
        ROWS=factors.rows,
        STEPS=steps,
        GATE=gate is not None,
        NORM=NO_NORM if gate is None else gate.norm,
        ALIKE=gate is not None and gate.alike,
        BOUNDED=gate is not None and gate.bounded,
        ORDERED=gate is not None and gate.ordered,
        ROTATE=factors.matrices is not None,
        DEVICE=device,
        PDL=pdl,
        num_warps=factors.rows // 16,
        num_stages=1,
        maxnreg=168 if many and gate is not None else 128,
        **({"launch_pdl": True} if pdl else {}),
    )


__all__ = ["rotate", "rotate_kernel"]
