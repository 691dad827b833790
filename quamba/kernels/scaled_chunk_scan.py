"""The Mamba-2 recurrence of a prompt's codes, in plain PyTorch, and as `triton_chunk_scan` computes it.

    S_t = exp(dt_t A) S_{t-1} + dt_t x_t B_t^T,  y_t = S_t C_t + D x_t

All is scaled by what bounds it whatever the tokens are, so that float16 holds the state, what is added to it, and y.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from quamba.kernels.chunk_scan import chunk_scan

if TYPE_CHECKING:
    from quamba.kernels.triton_ssd_step import SSDStep

# Tokens of a chunk.
CHUNK = 64
_LEAST_SHARE = 1 / 16


@dataclass(frozen=True, slots=True)
class ChunkScan:
    """What the kernel reads of one layer; all on one device.

    Attributes:
        step: the recurrence, as a step has it.
        bound: at least the largest dt, float32 [H].
        unit: what the state is counted in, float32 [E].
        skip: D, counted as the tensor cores' sums are, float32 [E].
        power: of 2 that tokens' shares of the state are multiplied with, float32 [H].
        rest: another power of two that keeps the state within float16, float32 [H].
        out_norm: one that keeps y so, float32 [H].
        gain: of what is given out to y, float32 [E].
        ordered: channels are where they were.
        alike: channels of a head share what they skip.
        bounded: the rest is 1.
    """

    step: "SSDStep"
    bound: Tensor
    unit: Tensor
    skip: Tensor
    power: Tensor
    rest: Tensor
    out_norm: Tensor
    gain: Tensor
    ordered: bool
    alike: bool
    bounded: bool

    @classmethod
    def of(cls, step: "SSDStep") -> "ChunkScan | None":
        """Of a layer's step; None where B or C have more than one scale in a group, or sizes do not fit."""
        E, H, P, G, N = step.sizes
        if P < 16 or N < 16 or P * N > 1 << 14:
            return None
        scales = step.projected_scale[2 * E : 2 * E + 2 * G * N].view(2, G, N)
        if bool((scales != scales[..., :1]).any()):
            return None
        b, c = scales[..., 0].repeat_interleave(H // G, 1)
        x = step.projected_scale[E : 2 * E].view(H, P)
        dt_scale = step.projected_scale[2 * (E + G * N) :]
        bound = torch.nn.functional.softplus(128 * dt_scale + step.dt_bias).clamp(*step.dt_limit)
        # Not below what rounds up.
        bound = (bound * 1.001).clamp(min=1e-30)
        unit = x * (b * bound)[:, None]
        gain = unit * c[:, None] * (N / 2)
        skip = step.D.view(H, P) * x / gain
        # What a long text of the largest codes adds up to: sum of dt exp(A t) is at most dt + 1 / |A|.
        sums = 1 - 1 / (step.A * bound)
        scale = step.state_table[step.state_rows.int()].view(H, P, N)
        at_first = 128 * (scale / unit[..., None]).amax((1, 2))
        state_norm = _power_below(32768 / ((1 << 14) * sums + at_first))
        # With more of it the share of a token whose dt is small would be too small for float16.
        shared = state_norm.clamp(_LEAST_SHARE, 1.0)
        rest = (state_norm / shared).clamp(max=1.0)
        out_norm = _power_below(32768 / ((1 << 22) * sums + 256 * at_first + 128 * skip.abs().amax(1)))
        return cls(
            step=step,
            bound=bound,
            unit=(unit / shared[:, None]).flatten(),
            skip=skip.flatten(),
            power=shared.log2(),
            rest=rest,
            out_norm=out_norm,
            gain=(gain / out_norm[:, None]).flatten(),
            ordered=bool((step.old_place.view(H, P) == torch.arange(P, device=x.device)).all()),
            alike=bool((skip == skip[:, :1]).all()),
            bounded=bool((rest == 1).all()),
        )


def _power_below(values: Tensor) -> Tensor:
    return torch.exp2(values.log2().floor().clamp(-100, 100))


def chunk_scan_reference(
    step: "SSDStep",
    dt: Tensor,
    conv: Tensor,
    before: Tensor | None,
    after: Tensor,
    out: Tensor,
) -> None:
    """The definition, in plain PyTorch, of dt as it is; `out` is y in float32.

    Args:
        step: the layer.
        dt: float32 [Bt, L, H].
        conv: codes x, B, C behind the convolution, int8 [Bt, L, E + 2GN].
        before: the state, int8 [Bt, H, P, N]; None for zeros.
        after: the state behind the last token, int8 [Bt, H, P, N].
        out: float32 [Bt, L, E].
    """
    E, H, P, G, N = step.sizes
    batch, length, _ = conv.shape
    values = conv * step.projected_scale[E : 2 * (E + G * N)]
    x = values[..., :E].reshape(batch, length, H, P)
    B, C = (values[..., E + i * G * N : E + (i + 1) * G * N].reshape(batch, length, G, N) for i in (0, 1))
    scale = step.state_table[step.state_rows.int()].view(H, P, N)
    state = None if before is None else before * scale
    result = chunk_scan(x, dt, step.A, B, C, step.D.view(H, P), state=state)
    after.copy_((result.state / scale).round().clamp(-128, 127))
    places = step.old_head.long().repeat_interleave(P) * P + step.old_place.long()
    out[..., places] = result.y.flatten(-2)


__all__ = ["CHUNK", "ChunkScan", "chunk_scan_reference"]
