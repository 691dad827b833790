# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""One token of a Mamba-1 layer in floats behind x_proj: dt_proj, the state, the gate; a few channels a program.

dt = softplus(W_dt p_dt + b)                     W_dt in float32, as W4A16 leaves it
h = exp(dt A) h + dt u B,   y = h C + D u        h kept as float32
out = y SiLU(z) g                                g: what makes the rotation behind it orthonormal
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.triton_common import silu, softplus, wait_before


@triton.jit
def float_selective_kernel(
    u,
    z,
    parameters,
    dt_weight,
    dt_bias,
    A,
    D,
    state,
    out,
    gain,
    E,
    R,
    N,
    z_stride,
    BLOCK: tl.constexpr,
    RANKS: tl.constexpr,
    STATES: tl.constexpr,
    PDL: tl.constexpr,
):
    """Channels BLOCK * program_id(0).. of row program_id(1)."""
    e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.program_id(1)
    live = e < E
    r, n = tl.arange(0, RANKS), tl.arange(0, STATES)
    inside = live[:, None] & (n < N)[None, :]
    W = tl.load(dt_weight + e[:, None] * R + r[None, :], mask=live[:, None] & (r < R)[None, :], other=0.0)
    kept = state + (row * E + e)[:, None].to(tl.int64) * N + n[None, :]
    S = tl.load(kept, mask=inside, other=0.0)
    a = tl.load(A + e[:, None] * N + n[None, :], mask=inside, other=0.0)
    shift, skip = tl.load(dt_bias + e, mask=live, other=0.0), tl.load(D + e, mask=live, other=0.0)
    wait_before(PDL)
    given = parameters + row * (R + 2 * N)
    p = tl.load(given + r, mask=r < R, other=0.0)
    B = tl.load(given + R + n, mask=n < N, other=0.0)
    C = tl.load(given + R + N + n, mask=n < N, other=0.0)
    x = tl.load(u + row * E + e, mask=live, other=0.0)
    gate = silu(tl.load(z + row * z_stride + e, mask=live, other=0.0))
    dt = softplus(tl.sum(W * p[None, :], axis=1) + shift)
    S = tl.exp(dt[:, None] * a) * S + (dt * x)[:, None] * B[None, :]
    y = tl.sum(S * C[None, :], axis=1) + x * skip
    tl.store(out + row * E + e, y * gate * gain, mask=live)
    tl.store(kept, S, mask=inside)


@dataclass(frozen=True, slots=True, eq=False)
class FloatSelectiveStep:
    """What the kernel reads of one layer; all on one device.

    Attributes:
        dt_weight: of dt_proj, float32 [E, R].
        dt_bias: float32 [E].
        A: float32 [E, N], negative.
        D: float32 [E].
        gain: makes the rotation's factors orthonormal.
    """

    dt_weight: Tensor
    dt_bias: Tensor
    A: Tensor
    D: Tensor
    gain: float


def float_selective_step(
    step: FloatSelectiveStep,
    u: Tensor,
    z: Tensor,
    parameters: Tensor,
    state: Tensor,
    out: Tensor,
    *,
    block: int = 16,
    pdl: bool = False,
) -> None:
    """Launch it; `state` is brought up to date.

    Args:
        step: the layer.
        u: behind the convolution, float32 [Bt, E].
        z: the gate, float32 [Bt, E]; rows may lie apart.
        parameters: dt, B, C of x_proj, float32 [Bt, R + 2N].
        state: float32 [Bt, E, N].
        out: float32 [Bt, E].
        block: channels a program takes.
        pdl: overlap with the kernel before.
    """
    (channels, states), rank = step.A.shape, step.dt_weight.shape[1]
    float_selective_kernel[(triton.cdiv(channels, block), len(u))](
        u,
        z,
        parameters,
        step.dt_weight,
        step.dt_bias,
        step.A,
        step.D,
        state,
        out,
        step.gain,
        channels,
        rank,
        states,
        z.stride(0),
        BLOCK=block,
        RANKS=max(16, triton.next_power_of_2(rank)),
        STATES=triton.next_power_of_2(states),
        PDL=pdl,
        num_warps=4,
        enable_fp_fusion=False,
        **({"launch_pdl": True} if pdl else {}),
    )


def float_selective_step_reference(
    step: FloatSelectiveStep, u: Tensor, z: Tensor, parameters: Tensor, state: Tensor, out: Tensor
) -> None:
    """The definition, in plain PyTorch; arguments as `float_selective_step`."""
    (_, N), R = step.A.shape, step.dt_weight.shape[1]
    dt = torch.nn.functional.softplus(parameters[:, :R] @ step.dt_weight.t() + step.dt_bias)
    B, C = (parameters[:, R + i * N : R + (i + 1) * N] for i in (0, 1))
    state.mul_(torch.exp(dt[..., None] * step.A)).add_((dt * u)[..., None] * B[:, None])
    y = (state * C[:, None]).sum(-1) + u * step.D
    out.copy_(y * torch.nn.functional.silu(z) * step.gain)


__all__ = [
    "FloatSelectiveStep",
    "float_selective_kernel",
    "float_selective_step",
    "float_selective_step_reference",
]
