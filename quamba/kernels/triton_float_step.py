# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, no-untyped-call"
# (What Triton compiles has no Python types.)
"""One token of a Mamba-2 layer in floats, from its projection to the norm, a few channels of a head a program.

    [x, B, C] = SiLU(conv(past, new))       dt = softplus(dt + bias)
    S = exp(dt A) S + dt x B^T,  y = S C + D x          S kept as float32
    out = y SiLU(z) w,  squares = sum (y SiLU(z))^2     (or of y alone, where the norm comes before the gate)

Channels go back to the order that they had before heads were reordered, as `triton_ssd_step` has it for codes.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.triton_common import only_if, silu, softplus, wait_before


@triton.jit
def _past(ring, weights, bias, channels, position, C, K: tl.constexpr):
    """What the convolution of some channels needs besides the new input: its past, and the new input's weight."""
    acc = tl.load(bias + channels)
    for tap in tl.static_range(K - 1):
        slot = (position + 1 + tap) % K
        acc += tl.load(ring + slot * C + channels) * tl.load(weights + tap * C + channels)
    return acc, tl.load(weights + (K - 1) * C + channels)


@triton.jit
def float_step_kernel(
    projected,
    ring,
    position,
    conv_weight,
    conv_bias,
    dt_bias,
    A,
    D,
    state,
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
    TAPS: tl.constexpr,
    PARTS: tl.constexpr,
    NORM_FIRST: tl.constexpr,
    PDL: tl.constexpr,
):
    """Part program_id(0) % PARTS of head program_id(0) / PARTS, of row program_id(1)."""
    head = tl.program_id(0) // PARTS
    part = tl.program_id(0) % PARTS
    row = tl.program_id(1)
    PP: tl.constexpr = P // PARTS
    CHANNELS: tl.constexpr = E + 2 * G * N
    WIDTH: tl.constexpr = E + CHANNELS + H
    group = head // (H // G)
    p = tl.arange(0, PP)
    n = tl.arange(0, N)
    e = head * P + part * PP + p
    new = projected + row * WIDTH
    b_channels = E + group * N + n
    c_channels = b_channels + G * N
    kept_state = state + ((row * H + head) * P + part * PP + p)[:, None].to(tl.int64) * N + n[None, :]
    # All but the projection is this kernel's own, and of earlier steps: read before that is there.
    S = tl.load(kept_state)
    t = tl.load(position)
    past = ring + row * (TAPS * CHANNELS)
    x_past, x_weight = _past(past, conv_weight, conv_bias, e, t, CHANNELS, TAPS)
    b_past, b_weight = _past(past, conv_weight, conv_bias, b_channels, t, CHANNELS, TAPS)
    c_past, c_weight = _past(past, conv_weight, conv_bias, c_channels, t, CHANNELS, TAPS)
    dt_shift, a = tl.load(dt_bias + head), tl.load(A + head)
    skip, weight = tl.load(D + e), tl.load(norm_weight + e)
    to = tl.load(old_head + head)
    place = to * P + tl.load(old_place + e).to(tl.int32)
    wait_before(PDL)
    x_new = tl.load(new + E + e)
    b_new = tl.load(new + E + b_channels)
    c_new = tl.load(new + E + c_channels)
    # The place of the oldest input, which nobody reads any more.
    kept = past + (t % TAPS) * CHANNELS
    tl.store(kept + e, x_new)
    # The first program of a group keeps what all of the group read.
    first = (head % (H // G) == 0) & (part == 0)
    tl.store(kept + b_channels, b_new, mask=only_if(n >= 0, first))
    tl.store(kept + c_channels, c_new, mask=only_if(n >= 0, first))
    x = silu(x_past + x_new * x_weight)
    B = silu(b_past + b_new * b_weight)
    Cs = silu(c_past + c_new * c_weight)
    dt = softplus(tl.load(new + E + CHANNELS + head) + dt_shift)
    gate = silu(tl.load(new + e))
    dt = tl.minimum(tl.maximum(dt, dt_low), dt_high)
    S = tl.exp(dt * a) * S + (dt * x)[:, None] * B[None, :]
    y = tl.sum(S * Cs[None, :], axis=1) + x * skip
    v = y * gate
    tl.store(out + row * E + place, v * weight)
    if NORM_FIRST:
        tl.store(squares + (row * H + to) * PARTS + part, tl.sum(y * y, axis=0))
    else:
        tl.store(squares + (row * H + to) * PARTS + part, tl.sum(v * v, axis=0))
    tl.store(kept_state, S)


@dataclass(frozen=True, slots=True, eq=False)
class FloatStep:
    """What the kernel reads of one layer; all on one device.

    Attributes:
        sizes: E, H, P, G, N; P and N powers of two.
        conv_weight: float32 [taps, E + 2GN].
        conv_bias: float32 [E + 2GN].
        dt_bias: float32 [H].
        A: float32 [H], negative.
        D: float32 [E].
        dt_limit: the least and the largest dt.
        norm_weight: float32 [E], times what makes the rotation's factors orthonormal.
        norm_first: the gated norm looks at y before the gate.
        old_head: where each head was before heads were reordered, int32 [H]: the rotation is of the old order.
        old_place: each channel's place in its head then, int16 [E].
    """

    sizes: tuple[int, int, int, int, int]
    conv_weight: Tensor
    conv_bias: Tensor
    dt_bias: Tensor
    A: Tensor
    D: Tensor
    dt_limit: tuple[float, float]
    norm_weight: Tensor
    norm_first: bool
    old_head: Tensor
    old_place: Tensor


def float_step(
    step: FloatStep,
    projected: Tensor,
    ring: Tensor,
    position: Tensor,
    state: Tensor,
    out: Tensor,
    squares: Tensor,
    *,
    warps: int = 4,
    pdl: bool = False,
) -> None:
    """Launch it; `ring` and `state` are brought up to date.

    Args:
        step: the layer.
        projected: z, x, B, C, dt, float32 [Bt, 2E + 2GN + H].
        ring: the convolution's last inputs, the one of time t at t % taps, float32 [Bt, taps, E + 2GN].
        position: the token's time, int32 [1].
        state: float32 [Bt, H, P, N].
        out: float32 [Bt, E].
        squares: float32 [Bt, H parts]: a head's sum in as many parts as programs take it, a power of two.
        warps: of a program.
        pdl: overlap with the kernel before.
    """
    E, H, P, G, N = step.sizes
    parts = squares.shape[1] // H
    float_step_kernel[(H * parts, len(projected))](
        projected,
        ring,
        position,
        step.conv_weight,
        step.conv_bias,
        step.dt_bias,
        step.A,
        step.D,
        state,
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
        TAPS=len(step.conv_weight),
        PARTS=parts,
        NORM_FIRST=step.norm_first,
        PDL=pdl,
        num_warps=warps,
        enable_fp_fusion=False,
        **({"launch_pdl": True} if pdl else {}),
    )


def float_step_reference(
    step: FloatStep, projected: Tensor, ring: Tensor, position: Tensor, state: Tensor, out: Tensor, squares: Tensor
) -> None:
    """The definition, in plain PyTorch; arguments as `float_step`."""
    E, H, P, G, N = step.sizes
    batch, taps, t = len(projected), len(step.conv_weight), int(position)
    z, new, dt = projected.split((E, E + 2 * G * N, H), dim=1)
    ring[:, t % taps] = new
    order = [(t + 1 + tap) % taps for tap in range(taps)]
    conv = torch.nn.functional.silu((ring[:, order] * step.conv_weight).sum(1) + step.conv_bias)
    x, B, C = conv.split((E, G * N, G * N), dim=1)
    x = x.view(batch, H, P)
    B, C = (part.view(batch, G, N).repeat_interleave(H // G, 1) for part in (B, C))
    dt = torch.nn.functional.softplus(dt + step.dt_bias).clamp(*step.dt_limit)
    state.mul_(torch.exp(dt * step.A)[..., None, None]).add_((dt[..., None] * x)[..., None] * B[:, :, None])
    y = torch.einsum("bhpn,bhn->bhp", state, C) + x * step.D.view(H, P)
    v = y * torch.nn.functional.silu(z).view(batch, H, P)
    parts = squares.shape[1] // H
    sums = (y if step.norm_first else v).square().view(batch, H, parts, -1).sum(-1)
    squares.view(batch, H, parts)[:, step.old_head.long()] = sums
    places = (step.old_head.long()[:, None] * P + step.old_place.long().view(H, P)).flatten()
    out[:, places] = v.flatten(1) * step.norm_weight


__all__ = ["FloatStep", "float_step", "float_step_kernel", "float_step_reference"]
