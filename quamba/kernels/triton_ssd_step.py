# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""One token of a quantized Mamba-2 layer behind its convolution, a few channels of a head a program.

    S = exp(dt A) S + dt x B^T,  y = S C + D x          S kept as int8 with a scale a column and group of channels
    out = y SiLU(z) w,  squares = sum (y SiLU(z))^2     (or of y alone, where the norm comes before the gate)

Channels go back to the order that they had before heads were reordered. What is left of norm and rotation joins them:
`quamba.kernels.triton_join`.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.triton_common import (
    silu,
    softplus,
    to_codes,
    wait_before,
)


@triton.jit
def ssd_step_kernel(
    projected,
    projected_scale,
    dt_bias,
    A,
    D,
    state,
    state_table,
    state_inverse,
    state_rows,
    norm_weight,
    old_head,
    old_place,
    out,
    squares,
    dt_low,
    dt_high,
    E: tl.constexpr,
    H: tl.constexpr,
    P: tl.constexpr,
    G: tl.constexpr,
    N: tl.constexpr,
    PARTS: tl.constexpr,
    NORM_FIRST: tl.constexpr,
    ONE_SCALE: tl.constexpr,
    PDL: tl.constexpr,
):
    """Part program_id(0) % PARTS of head program_id(0) / PARTS, of row program_id(1)."""
    head = tl.program_id(0) // PARTS
    part = tl.program_id(0) % PARTS
    row = tl.program_id(1)
    PP: tl.constexpr = P // PARTS
    WIDTH: tl.constexpr = 2 * E + 2 * G * N + H
    group = head // (H // G)
    p = tl.arange(0, PP)
    n = tl.arange(0, N)
    e = head * P + part * PP + p
    # All but the projection's codes is this kernel's own, and of earlier steps: read before they are there.
    codes = projected + row * WIDTH
    b_columns = 2 * E + group * N + n
    c_columns = b_columns + G * N
    kept_state = state + ((row * H + head) * P + part * PP + p)[:, None].to(tl.int64) * N + n[None, :]
    S = tl.load(kept_state)
    x_scale = tl.load(projected_scale + E + e)
    b_scale, c_scale = tl.load(projected_scale + b_columns), tl.load(projected_scale + c_columns)
    if ONE_SCALE:
        s, inverse = tl.load(state_table + n), tl.load(state_inverse + n)
    else:
        of_row = tl.load(state_rows + e).to(tl.int32)[:, None] * N + n[None, :]
        s, inverse = tl.load(state_table + of_row), tl.load(state_inverse + of_row)
    dt_column = 2 * E + 2 * G * N + head
    dt_scale, dt_shift, a = tl.load(projected_scale + dt_column), tl.load(dt_bias + head), tl.load(A + head)
    z_scale, skip, weight = tl.load(projected_scale + e), tl.load(D + e), tl.load(norm_weight + e)
    to = tl.load(old_head + head)
    place = to * P + tl.load(old_place + e).to(tl.int32)
    wait_before(PDL)
    x = tl.load(codes + E + e).to(tl.float32) * x_scale
    B = tl.load(codes + b_columns).to(tl.float32) * b_scale
    Cs = tl.load(codes + c_columns).to(tl.float32) * c_scale
    dt = softplus(tl.load(codes + dt_column).to(tl.float32) * dt_scale + dt_shift)
    gate = silu(tl.load(codes + e).to(tl.float32) * z_scale)
    dt = tl.minimum(tl.maximum(dt, dt_low), dt_high)
    decay = tl.exp(dt * a)
    if ONE_SCALE:
        # In units of the scale: a column's own factors meet the vectors, not the matrix.
        S = decay * S.to(tl.float32) + (dt * x)[:, None] * (B * inverse)[None, :]
        y = tl.sum(S * (Cs * s)[None, :], axis=1) + x * skip
        kept = S
    else:
        S = decay * (S.to(tl.float32) * s) + (dt * x)[:, None] * B[None, :]
        y = tl.sum(S * Cs[None, :], axis=1) + x * skip
        kept = S * inverse
    v = y * gate
    tl.store(out + row * E + place, v * weight)
    if NORM_FIRST:
        tl.store(squares + (row * H + to) * PARTS + part, tl.sum(y * y, axis=0))
    else:
        tl.store(squares + (row * H + to) * PARTS + part, tl.sum(v * v, axis=0))
    tl.store(kept_state, to_codes(kept))


@dataclass(frozen=True, slots=True)
class SSDStep:
    """What the kernel reads of one layer; all on one device.

    Attributes:
        sizes: E, H, P, G, N; P and N powers of two.
        projected_scale: of the codes that it reads (z; x, B, C behind the convolution; dt), float32 [2E + 2GN + H].
        dt_bias: float32 [H].
        A: float32 [H], negative.
        D: float32 [E].
        dt_limit: the least and the largest dt.
        state_table: float32 [rows, N].
        state_inverse: 1 / state_table.
        state_rows: int16 [E], each channel's row of the table.
        norm_weight: float32 [E], times what makes the rotation's factors orthonormal.
        norm_first: the gated norm looks at y before the gate.
        old_head: where each head was before heads were reordered, int32 [H]: the rotation is of the old order.
        old_place: each channel's place in its head then, int16 [E].
    """

    sizes: tuple[int, int, int, int, int]
    projected_scale: Tensor
    dt_bias: Tensor
    A: Tensor
    D: Tensor
    dt_limit: tuple[float, float]
    state_table: Tensor
    state_inverse: Tensor
    state_rows: Tensor
    norm_weight: Tensor
    norm_first: bool
    old_head: Tensor
    old_place: Tensor


def ssd_step(
    step: SSDStep,
    projected: Tensor,
    state: Tensor,
    out: Tensor,
    squares: Tensor,
    *,
    warps: int = 4,
    pdl: bool = False,
) -> None:
    """Launch it; `state` is brought up to date.

    Args:
        step: the layer.
        projected: codes z, x, B, C, dt, int8 [Bt, 2E + 2GN + H].
        state: int8 [Bt, H, P, N].
        out: float32 [Bt, E].
        squares: float32 [Bt, H parts]: a head's sum in as many parts as programs take it, a power of two.
        warps: of a program.
        pdl: overlap with the kernel before.
    """
    E, H, P, G, N = step.sizes
    parts = squares.shape[1] // H
    ssd_step_kernel[(H * parts, len(projected))](
        projected,
        step.projected_scale,
        step.dt_bias,
        step.A,
        step.D,
        state,
        step.state_table,
        step.state_inverse,
        step.state_rows,
        step.norm_weight,
        step.old_head,
        step.old_place,
        out,
        squares,
        step.dt_limit[0],
        min(step.dt_limit[1], 3.0e38),
        E=E,
        H=H,
        P=P,
        G=G,
        N=N,
        PARTS=parts,
        NORM_FIRST=step.norm_first,
        ONE_SCALE=len(step.state_table) == 1,
        PDL=pdl,
        num_warps=warps,
        **({"launch_pdl": True} if pdl else {}),
    )


def ssd_step_reference(step: SSDStep, projected: Tensor, state: Tensor, out: Tensor, squares: Tensor) -> None:
    """The definition, in plain PyTorch; arguments as `ssd_step`."""
    E, H, P, G, N = step.sizes
    batch = len(projected)
    values = projected * step.projected_scale
    x = values[:, E : 2 * E].view(batch, H, P)
    B, C = (
        values[:, 2 * E + i * G * N : 2 * E + (i + 1) * G * N].reshape(batch, G, N).repeat_interleave(H // G, 1)
        for i in (0, 1)
    )
    dt = torch.nn.functional.softplus(values[:, 2 * E + 2 * G * N :] + step.dt_bias).clamp(*step.dt_limit)
    scale = step.state_table[step.state_rows.int()].view(H, P, N)
    S = torch.exp(dt * step.A)[..., None, None] * (state * scale) + (dt[..., None] * x)[..., None] * B[:, :, None]
    state.copy_((S / scale).round().clamp(-128, 127))
    y = (S * C[:, :, None]).sum(-1) + x * step.D.view(H, P)
    gated = y * torch.nn.functional.silu(values[:, :E]).view(batch, H, P)
    parts = squares.shape[1] // H
    sums = (y if step.norm_first else gated).square().view(batch, H, parts, -1).sum(-1)
    squares.view(batch, H, parts)[:, step.old_head.long()] = sums
    old = step.old_head.long().repeat_interleave(P) * P + step.old_place.long()
    out[:, old] = (gated * step.norm_weight.view(H, P)).flatten(1)


__all__ = ["SSDStep", "ssd_step", "ssd_step_kernel", "ssd_step_reference"]
