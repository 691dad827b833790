"""The Mamba-2 recurrence of a prompt's codes, with its gate.

    S_t = exp(dt_t A) S_{t-1} + dt_t x_t B_t^T,  y_t = S_t C_t + D x_t
    out = y SiLU(z) w,  squares = sum (y SiLU(z))^2     (or of y alone, where the norm comes before the gate)

Channels go back to the order that they had before heads were reordered.
"""

import torch
from torch import Tensor

from quamba.kernels.chunk_scan import chunk_scan
from quamba.kernels.triton_ssd_step import SSDStep


def chunk_scan_reference(
    step: SSDStep,
    projected: Tensor,
    conv: Tensor,
    lengths: Tensor | None,
    before: Tensor | None,
    after: Tensor,
    out: Tensor,
    squares: Tensor,
) -> None:
    """The definition, in plain PyTorch.

    Args:
        step: the layer.
        projected: codes z and dt in their columns, int8 [Bt, L, 2E + 2GN + H].
        conv: codes x, B, C behind the convolution, int8 [Bt, L, E + 2GN].
        lengths: real tokens of each row, int64 [Bt]; None: all. Others leave the state as it is.
        before: the state, int8 [Bt, H, P, N]; None for zeros.
        after: the state behind the last token, int8 [Bt, H, P, N].
        out: float32 [Bt, L, E].
        squares: float32 [Bt, L, H].
    """
    E, H, P, G, N = step.sizes
    batch, length, _ = projected.shape
    values = conv * step.projected_scale[E : 2 * (E + G * N)]
    x = values[..., :E].reshape(batch, length, H, P)
    B, C = (values[..., E + i * G * N : E + (i + 1) * G * N].reshape(batch, length, G, N) for i in (0, 1))
    dt = projected[..., 2 * (E + G * N) :] * step.projected_scale[2 * (E + G * N) :]
    dt = torch.nn.functional.softplus(dt + step.dt_bias).clamp(*step.dt_limit)
    if lengths is not None:
        dt = dt * (torch.arange(length, device=dt.device) < lengths[:, None])[..., None]
    scale = step.state_table[step.state_rows.int()].view(H, P, N)
    state = None if before is None else before * scale
    result = chunk_scan(x, dt, step.A, B, C, step.D.view(H, P), state=state)
    after.copy_((result.state / scale).round().clamp(-128, 127))
    y = result.y
    gated = y * torch.nn.functional.silu(projected[..., :E] * step.projected_scale[:E]).view(y.shape)
    old = step.old_head.long()
    squares[..., old] = (y if step.norm_first else gated).square().sum(-1)
    places = old.repeat_interleave(P) * P + step.old_place.long()
    out[..., places] = (gated * step.norm_weight.view(H, P)).flatten(-2)


__all__ = ["chunk_scan_reference"]
