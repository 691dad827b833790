# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""One token of a quantized Mamba-1 layer behind x_proj: dt_proj, the state, the gate; a few channels a program.

dt = softplus(s_dt q8(W_dt p_dt) + b)
h = exp(dt A) h + dt u B,   y = h C + D u        h kept as int8 with one scale
out = y SiLU(z) g                                g: what makes the rotation behind it orthonormal
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.triton_common import round_codes, silu, softplus, to_codes, wait_before


@triton.jit
def selective_step_kernel(
    projected,
    z_scale,
    u_scale,
    parameters,
    parameter_factor,
    parameter_scale,
    dt_weight,
    dt_factor,
    dt_scale,
    dt_bias,
    A,
    D,
    state,
    state_scale,
    out,
    gain,
    E,
    R,
    N,
    BLOCK: tl.constexpr,
    RANKS: tl.constexpr,
    STATES: tl.constexpr,
    SUMS: tl.constexpr,
    PDL: tl.constexpr,
):
    """Channels BLOCK * program_id(0).. of row program_id(1)."""
    e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.program_id(1)
    live = e < E
    r, n = tl.arange(0, RANKS), tl.arange(0, STATES)
    inside = live[:, None] & (n < N)[None, :]
    W = tl.load(dt_weight + e[:, None] * R + r[None, :], mask=live[:, None] & (r < R)[None, :], other=0)
    kept = state + (row * E + e)[:, None].to(tl.int64) * N + n[None, :]
    S = tl.load(kept, mask=inside, other=0)
    a = tl.load(A + e[:, None] * N + n[None, :], mask=inside, other=0.0)
    factor, step = tl.load(dt_factor + e, mask=live, other=0.0), tl.load(dt_scale + e, mask=live, other=0.0)
    shift, skip = tl.load(dt_bias + e, mask=live, other=0.0), tl.load(D + e, mask=live, other=0.0)
    sz = tl.load(z_scale + e, mask=live, other=0.0)
    if SUMS:
        f_p = tl.load(parameter_factor + r, mask=r < R, other=0.0)
        f_B = tl.load(parameter_factor + R + n, mask=n < N, other=0.0)
        f_C = tl.load(parameter_factor + R + N + n, mask=n < N, other=0.0)
    s_u, s_p, s_state = tl.load(u_scale), tl.load(parameter_scale), tl.load(state_scale)
    inverse = 1.0 / s_state
    wait_before(PDL)
    given = parameters + row * (R + 2 * N)
    p = tl.load(given + r, mask=r < R, other=0)
    B = tl.load(given + R + n, mask=n < N, other=0).to(tl.float32)
    C = tl.load(given + R + N + n, mask=n < N, other=0).to(tl.float32)
    if SUMS:
        p = round_codes(p.to(tl.float32) * f_p)
        B = round_codes(B * f_B)
        C = round_codes(C * f_C)
    B *= s_p
    C *= s_p
    u = tl.load(projected + row * (2 * E) + e, mask=live, other=0).to(tl.float32) * s_u
    z = tl.load(projected + row * (2 * E) + E + e, mask=live, other=0).to(tl.float32) * sz
    acc = tl.sum(W.to(tl.int32) * p.to(tl.int32)[None, :], axis=1)
    dt = softplus(round_codes(acc.to(tl.float32) * factor) * step + shift)
    S = tl.exp(dt[:, None] * a) * (S.to(tl.float32) * s_state) + (dt * u)[:, None] * B[None, :]
    y = tl.sum(S * C[None, :], axis=1) + u * skip
    tl.store(out + row * E + e, y * silu(z) * gain, mask=live)
    tl.store(kept, to_codes(S * inverse), mask=inside)


@dataclass(frozen=True, slots=True)
class SelectiveStep:
    """What the kernel reads of one layer; all on one device.

    Attributes:
        z_scale: of in_proj's output, the z half, float32 [E].
        u_scale: of the codes behind the convolution, float32, one value.
        parameter_factor: all scales of x_proj in one, float32 [R + 2N].
        parameter_scale: of x_proj's output, float32, one value.
        dt_weight: int8 [E, R].
        dt_factor: all scales of dt_proj in one, float32 [E].
        dt_scale: of dt_proj's output, float32 [E].
        dt_bias: float32 [E].
        A: float32 [E, N], negative.
        D: float32 [E].
        state_scale: float32, one value.
        gain: makes the rotation's factors orthonormal.
    """

    z_scale: Tensor
    u_scale: Tensor
    parameter_factor: Tensor
    parameter_scale: Tensor
    dt_weight: Tensor
    dt_factor: Tensor
    dt_scale: Tensor
    dt_bias: Tensor
    A: Tensor
    D: Tensor
    state_scale: Tensor
    gain: float


def selective_step(
    step: SelectiveStep,
    projected: Tensor,
    parameters: Tensor,
    state: Tensor,
    out: Tensor,
    *,
    block: int = 32,
    pdl: bool = False,
) -> None:
    """Launch it; `state` is brought up to date.

    Args:
        step: the layer.
        projected: codes u, z, int8 [Bt, 2E].
        parameters: x_proj's codes (dt, B, C), int8 [Bt, R + 2N], or the sums that they are made of, int32.
        state: int8 [Bt, E, N].
        out: float32 [Bt, E].
        block: channels a program takes.
        pdl: overlap with the kernel before.
    """
    (channels, states), rank = step.A.shape, step.dt_weight.shape[1]
    selective_step_kernel[(triton.cdiv(channels, block), len(projected))](
        projected,
        step.z_scale,
        step.u_scale,
        parameters,
        step.parameter_factor,
        step.parameter_scale,
        step.dt_weight,
        step.dt_factor,
        step.dt_scale,
        step.dt_bias,
        step.A,
        step.D,
        state,
        step.state_scale,
        out,
        step.gain,
        channels,
        rank,
        states,
        BLOCK=block,
        RANKS=max(16, triton.next_power_of_2(rank)),
        STATES=triton.next_power_of_2(states),
        SUMS=parameters.dtype == torch.int32,
        PDL=pdl,
        num_warps=4,
        **({"launch_pdl": True} if pdl else {}),
    )


def selective_step_reference(
    step: SelectiveStep, projected: Tensor, parameters: Tensor, state: Tensor, out: Tensor
) -> None:
    """The definition, in plain PyTorch; arguments as `selective_step`."""
    (E, N), R = step.A.shape, step.dt_weight.shape[1]
    if parameters.dtype == torch.int32:
        parameters = (parameters * step.parameter_factor).round().clamp(-128, 127).to(torch.int8)
    p = parameters[:, :R].double() @ step.dt_weight.double().t()
    codes = (p.to(torch.int32) * step.dt_factor).round().clamp(-128, 127)
    dt = torch.nn.functional.softplus(codes * step.dt_scale + step.dt_bias)
    B, C = (parameters[:, R + i * N : R + (i + 1) * N] * step.parameter_scale for i in (0, 1))
    u, z = projected[:, :E] * step.u_scale, projected[:, E:] * step.z_scale
    S = torch.exp(dt[..., None] * step.A) * (state * step.state_scale) + (dt * u)[..., None] * B[:, None]
    y = (S * C[:, None]).sum(-1) + u * step.D
    out.copy_(y * torch.nn.functional.silu(z) * step.gain)
    state.copy_((S / step.state_scale).round().clamp(-128, 127))


__all__ = ["SelectiveStep", "selective_step", "selective_step_kernel", "selective_step_reference"]
