# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""One token of a quantized Mamba-2 layer between its projections, a head a program.

    xBC = q8(SiLU(conv(codes)))                         the convolution's memory is a ring of d_conv codes a channel
    S = exp(dt A) S + dt x B^T,  y = S C + D x          S kept as int8 with a scale a column and group of channels
    v = y SiLU(z) w,  squares = sum (y SiLU(z))^2       (or of y alone, where the norm comes before the gate)
    out = v R                                           R: the Hadamard transform's factor inside a head, whose
                                                        heads and channels it finds in their old order

What is left of norm and rotation joins the heads: `quamba.kernels.triton_join`.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.triton_common import quantize, round_codes, silu, softplus, wait_before


@triton.jit
def _before(ring, weights, factor, bias, out_scale, channels, live, position, C, K: tl.constexpr):
    """What a convolution needs besides the new code: its past, the new code's weight, factor, bias and scale."""
    acc = tl.zeros(channels.shape, dtype=tl.int32)
    for tap in tl.static_range(K - 1):
        slot = (position + 1 + tap) % K
        past = tl.load(ring + slot * C + channels, mask=live, other=0).to(tl.int32)
        acc += past * tl.load(weights + tap * C + channels, mask=live, other=0).to(tl.int32)
    last = tl.load(weights + (K - 1) * C + channels, mask=live, other=0).to(tl.int32)
    f = tl.load(factor + channels, mask=live, other=0.0)
    b = tl.load(bias + channels, mask=live, other=0.0)
    return acc, last, f, b, tl.load(out_scale + channels, mask=live, other=1.0)


@triton.jit
def _after(new, acc, last, f, b, s):
    """The values behind the convolution."""
    v = (acc + new.to(tl.int32) * last).to(tl.float32) * f + b
    return quantize(silu(v), s).to(tl.float32) * s


@triton.jit
def ssd_step_kernel(
    projected,
    projected_scale,
    ring,
    position,
    conv_weight,
    conv_factor,
    conv_bias,
    conv_scale,
    dt_bias,
    A,
    D,
    state,
    state_table,
    state_rows,
    norm_weight,
    right,
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
    K: tl.constexpr,
    ROTATE: tl.constexpr,
    NORM_FIRST: tl.constexpr,
    ONE_SCALE: tl.constexpr,
    PDL: tl.constexpr,
):
    """Head program_id(0) of row program_id(1)."""
    head = tl.program_id(0)
    row = tl.program_id(1)
    C: tl.constexpr = E + 2 * G * N
    WIDTH: tl.constexpr = 2 * E + 2 * G * N + H
    group = head // (H // G)
    p = tl.arange(0, P)
    n = tl.arange(0, N)
    e = head * P + p
    # All but the projection's codes is this kernel's own, and of earlier steps: read before they are there.
    t = tl.load(position)
    codes = projected + row * WIDTH
    kept = ring + row * (K * C)
    b_channels = E + group * N + n
    c_channels = b_channels + G * N
    x_acc, x_last, x_f, x_b, x_s = _before(kept, conv_weight, conv_factor, conv_bias, conv_scale, e, p < P, t, C, K)
    b_acc, b_last, b_f, b_b, b_s = _before(
        kept, conv_weight, conv_factor, conv_bias, conv_scale, b_channels, n < N, t, C, K
    )
    c_acc, c_last, c_f, c_b, c_s = _before(
        kept, conv_weight, conv_factor, conv_bias, conv_scale, c_channels, n < N, t, C, K
    )
    kept_state = state + ((row * H + head) * P + p)[:, None].to(tl.int64) * N + n[None, :]
    S = tl.load(kept_state)
    if ONE_SCALE:
        s = tl.load(state_table + n)[None, :]
    else:
        s = tl.load(state_table + tl.load(state_rows + e).to(tl.int32)[:, None] * N + n[None, :])
    dt_column = 2 * E + 2 * G * N + head
    dt_scale, dt_shift, a = tl.load(projected_scale + dt_column), tl.load(dt_bias + head), tl.load(A + head)
    z_scale, skip, weight = tl.load(projected_scale + e), tl.load(D + e), tl.load(norm_weight + e)
    to = tl.load(old_head + head)
    if ROTATE:
        q = tl.arange(0, P)
        place = tl.load(old_place + e).to(tl.int32)
        R = tl.load(right + place[:, None] * P + q[None, :])
    wait_before(PDL)
    new_x, new_b, new_c = tl.load(codes + E + e), tl.load(codes + E + b_channels), tl.load(codes + E + c_channels)
    dt = tl.load(codes + dt_column).to(tl.float32) * dt_scale + dt_shift
    gate = silu(tl.load(codes + e).to(tl.float32) * z_scale)
    now = kept + (t % K) * C
    tl.store(now + e, new_x)
    # Heads of a group share B and C, and the first keeps them; none reads this slot.
    first = n + (head % (H // G)) * N < N
    tl.store(now + b_channels, new_b, mask=first)
    tl.store(now + c_channels, new_c, mask=first)
    x = _after(new_x, x_acc, x_last, x_f, x_b, x_s)
    B = _after(new_b, b_acc, b_last, b_f, b_b, b_s)
    Cs = _after(new_c, c_acc, c_last, c_f, c_b, c_s)
    dt = tl.minimum(tl.maximum(softplus(dt), dt_low), dt_high)
    decay = tl.exp(dt * a)
    S = decay * (S.to(tl.float32) * s) + (dt * x)[:, None] * B[None, :]
    y = tl.sum(S * Cs[None, :], axis=1) + x * skip
    v = y * gate
    if NORM_FIRST:
        tl.store(squares + row * H + to, tl.sum(y * y, axis=0))
    else:
        tl.store(squares + row * H + to, tl.sum(v * v, axis=0))
    v = v * weight
    if ROTATE:
        v = tl.sum(v[:, None] * R.to(tl.float32), axis=0)
        tl.store(out + row * E + to * P + q, v)
    else:
        tl.store(out + row * E + e, v)
    tl.store(kept_state, round_codes(S * (1.0 / s)).to(tl.int8))


@dataclass(frozen=True, slots=True)
class SSDStep:
    """What the kernel reads of one layer; all on one device. C = E + 2 G N channels pass the convolution.

    Attributes:
        sizes: E, H, P, G, N, K; P and N powers of two.
        projected_scale: of in_proj's output (z, x, B, C, dt), float32 [2E + 2GN + H].
        conv_weight: int8 [K, C].
        conv_factor: scale of a tap's product, float32 [C].
        conv_bias: float32 [C].
        conv_scale: of the convolution's output, float32 [C].
        dt_bias: float32 [H].
        A: float32 [H], negative.
        D: float32 [E].
        dt_limit: the least and the largest dt.
        state_table: float32 [rows, N].
        state_rows: int16 [E], each channel's row of the table.
        norm_weight: float32 [E], times what makes the rotation's factors orthonormal.
        norm_first: the gated norm looks at y before the gate.
        right: of +-1, int8 [P, P], or None without rotation.
        old_head: where each head was before heads were reordered, int32 [H]: the rotation is of the old order.
        old_place: each channel's place in its head then, int16 [E].
    """

    sizes: tuple[int, int, int, int, int, int]
    projected_scale: Tensor
    conv_weight: Tensor
    conv_factor: Tensor
    conv_bias: Tensor
    conv_scale: Tensor
    dt_bias: Tensor
    A: Tensor
    D: Tensor
    dt_limit: tuple[float, float]
    state_table: Tensor
    state_rows: Tensor
    norm_weight: Tensor
    norm_first: bool
    right: Tensor | None
    old_head: Tensor
    old_place: Tensor


def ssd_step(
    step: SSDStep,
    projected: Tensor,
    ring: Tensor,
    position: Tensor,
    state: Tensor,
    out: Tensor,
    squares: Tensor,
    *,
    warps: int = 8,
    pdl: bool = False,
) -> None:
    """Launch it; `ring` and `state` are brought up to date.

    Args:
        step: the layer.
        projected: in_proj's codes, int8 [Bt, 2E + 2GN + H].
        ring: int8 [Bt, K, C]; the token at time t lies in slot t mod K.
        position: int32 [1], the token's time, at least K - 1.
        state: int8 [Bt, H, P, N].
        out: float32 [Bt, E].
        squares: float32 [Bt, H].
        warps: of a program.
        pdl: overlap with the kernel before.
    """
    E, H, P, G, N, K = step.sizes
    ssd_step_kernel[(H, len(projected))](
        projected,
        step.projected_scale,
        ring,
        position,
        step.conv_weight,
        step.conv_factor,
        step.conv_bias,
        step.conv_scale,
        step.dt_bias,
        step.A,
        step.D,
        state,
        step.state_table,
        step.state_rows,
        step.norm_weight,
        step.norm_weight if step.right is None else step.right,
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
        K=K,
        ROTATE=step.right is not None,
        NORM_FIRST=step.norm_first,
        ONE_SCALE=len(step.state_table) == 1,
        PDL=pdl,
        num_warps=warps,
        enable_fp_fusion=False,
        **({"launch_pdl": True} if pdl else {}),
    )


def ssd_step_reference(
    step: SSDStep, projected: Tensor, ring: Tensor, position: Tensor, state: Tensor, out: Tensor, squares: Tensor
) -> None:
    """The definition, in plain PyTorch; arguments as `ssd_step`."""
    E, H, P, G, N, K = step.sizes
    time, batch = int(position), len(projected)
    ring[:, time % K] = projected[:, E : 2 * E + 2 * G * N]
    order = [(time + 1 + tap) % K for tap in range(K)]
    v = (ring[:, order].float() * step.conv_weight.float()).sum(1) * step.conv_factor + step.conv_bias
    codes = (torch.nn.functional.silu(v) / step.conv_scale).round().clamp(-128, 127)
    conv = codes * step.conv_scale
    x = conv[:, :E].view(batch, H, P)
    B, C = (
        conv[:, E + i * G * N : E + (i + 1) * G * N].reshape(batch, G, N).repeat_interleave(H // G, 1) for i in (0, 1)
    )
    values = projected * step.projected_scale
    dt = torch.nn.functional.softplus(values[:, 2 * E + 2 * G * N :] + step.dt_bias).clamp(*step.dt_limit)
    scale = step.state_table[step.state_rows.int()].view(H, P, N)
    S = torch.exp(dt * step.A)[..., None, None] * (state * scale) + (dt[..., None] * x)[..., None] * B[:, :, None]
    state.copy_((S / scale).round().clamp(-128, 127))
    y = (S * C[:, :, None]).sum(-1) + x * step.D.view(H, P)
    gated = y * torch.nn.functional.silu(values[:, :E]).view(batch, H, P)
    squares[:, step.old_head.long()] = (y if step.norm_first else gated).square().sum(-1)
    gated = (gated * step.norm_weight.view(H, P)).flatten(1)
    if step.right is None:
        out.copy_(gated)
        return
    old = step.old_head.long().repeat_interleave(P) * P + step.old_place.long()
    restored = torch.empty_like(gated)
    restored[:, old] = gated
    out.copy_((restored.view(batch, H, P) @ step.right.float()).flatten(1))


__all__ = ["SSDStep", "ssd_step", "ssd_step_kernel", "ssd_step_reference"]
