"""The recurrence of a prompt's codes in a Mamba-1 layer and the gate behind it, in plain PyTorch.

dt_t = softplus(s_dt q_dt + b), 0 at and beyond a row's length
h_t = exp(dt_t A) h_{t-1} + dt_t u_t B_t^T        h float32, from codes and to codes with one scale
out_t = (h_t C_t + D u_t) SiLU(z_t) g             g: what makes the rotation behind it orthonormal
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from quamba.kernels.triton_selective_step import SelectiveStep


def selective_scan_reference(
    step: "SelectiveStep",
    conv: Tensor,
    dt: Tensor,
    parameters: Tensor,
    projected: Tensor,
    before: Tensor | None,
    lengths: Tensor | None,
    out: Tensor,
    after: Tensor,
) -> None:
    """The definition, in plain PyTorch and `out`'s type; arguments as `triton_selective_scan.selective_scan`."""
    (E, N), R, kind = step.A.shape, step.dt_weight.shape[1], out.dtype
    length = conv.shape[1]
    delta = torch.nn.functional.softplus(dt.to(kind) * step.dt_scale + step.dt_bias)
    ends = torch.full((len(conv),), length, device=conv.device) if lengths is None else lengths
    real = torch.arange(length, device=conv.device) < ends[:, None]
    delta = delta * real[..., None]
    B, C = (parameters[..., R + i * N : R + (i + 1) * N].to(kind) * step.parameter_scale for i in (0, 1))
    u = conv.to(kind) * step.u_scale
    h = torch.zeros_like(after, dtype=kind) if before is None else before.to(kind) * step.state_scale
    y = torch.empty_like(u)
    for t in range(length):
        h = torch.exp(delta[:, t, :, None] * step.A) * h + (delta[:, t] * u[:, t])[..., None] * B[:, t, None]
        y[:, t] = (h * C[:, t, None]).sum(-1) + step.D * u[:, t]
    gated = y * torch.nn.functional.silu(projected[..., E:].to(kind) * step.z_scale) * step.gain
    out.copy_(torch.where(real[..., None], gated, out))
    after.copy_((h / step.state_scale).round().clamp(-128, 127))


__all__ = ["selective_scan_reference"]
