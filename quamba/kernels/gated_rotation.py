"""What comes behind the recurrence of a prompt, in plain PyTorch, and its gate as `triton_rotate` reads it.

    X [R, P'], a token's channels in rows: v = y SiLU(z), times rsqrt(mean v^2 of its group of rows + eps) w
    out = q8(L^T v M; s)        (where the norm comes first, the mean is of y^2; without one it is 1)

with L [R, R] and M [P', P'] of +-1, the two factors of a Hadamard transform (`quamba.kernels.rotation_factors`).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from quamba.kernels.rotation_factors import MOST_COLUMNS

if TYPE_CHECKING:
    from quamba.kernels.triton_ssd_step import SSDStep

# Of what float16 holds, far off its end.
_MOST = 30000.0
# Which squares a norm is of.
NO_NORM, OF_GATED, OF_PLAIN = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate with its norm, in the order of channels before heads were reordered; all on one device.

    Attributes:
        root: of y as given, and of z's codes and 1 + tanh where the norm is of what is gated, to what is squared,
            float32 [E].
        z_half: half of the scale of z's codes, float32 [E].
        weight: of y as given, times z's code and 1 + tanh, float32 [E].
        heads: where each head is in z, int32 [H].
        places: where each channel is, int32 [E].
        groups: G, of heads that share a mean.
        norm: `NO_NORM`, `OF_GATED`, `OF_PLAIN`.
        eps: added to the mean.
        ordered: channels are where they were within their head.
        alike: channels of a head share root and z_half; these are [H].
        bounded: float16 holds whatever is rotated.
    """

    root: Tensor
    z_half: Tensor
    weight: Tensor
    heads: Tensor
    places: Tensor
    groups: int
    norm: int
    eps: float
    ordered: bool
    alike: bool
    bounded: bool

    @classmethod
    def of(cls, step: "SSDStep", gain: Tensor, eps: float | None, scale: Tensor) -> "Gate":
        """Of a layer's step.

        Args:
            step: with its gate.
            gain: of y as given to y, float32 [E].
            eps: of the norm; None: there is none.
            scale: of the codes behind the rotation, float32.
        """
        E, H, P, G, _ = step.sizes
        heads = step.old_head.long().argsort()
        places = (step.old_head.long().repeat_interleave(P) * P + step.old_place.long()).argsort()
        z = step.projected_scale[:E]
        root = (gain if step.norm_first else gain * z / 2)[places].view(H, P)
        z_half = (z / 2)[places].view(H, P)
        weight = gain * z / 2 * step.norm_weight
        # What a norm leaves has E / G squares that add up to as many, of which those of a row of the rotation come
        # together.
        largest = (E / G) ** 0.5 * float(step.norm_weight.abs().max() / scale) * MOST_COLUMNS**0.5
        alike = all(bool((values == values[:, :1]).all()) for values in (root, z_half))
        return cls(
            root=(root[:, 0] if alike else root.flatten()).contiguous(),
            z_half=(z_half[:, 0] if alike else z_half.flatten()).contiguous(),
            weight=weight[places].contiguous(),
            heads=heads.int(),
            places=places.int(),
            groups=G,
            norm=NO_NORM if eps is None else OF_PLAIN if step.norm_first else OF_GATED,
            eps=eps or 0.0,
            ordered=bool((step.old_place.view(H, P) == torch.arange(P, device=z.device)).all()),
            alike=alike,
            bounded=eps is not None and not step.norm_first and largest < _MOST,
        )


def rotate_reference(
    x: Tensor,
    projected: Tensor | None,
    gate: Gate | None,
    factors: tuple[Tensor, Tensor] | None,
    scale: Tensor,
    out: Tensor,
    *,
    rows: int,
) -> None:
    """The definition, in plain PyTorch; arguments as `triton_rotate.rotate`, with L^T and M as they are, and R."""
    v = x.float()
    if gate is not None and projected is not None:
        H, E = len(gate.heads), x.shape[1]
        z = projected[:, :E].float()[:, gate.places.long()]
        root, z_half = (
            (t[:, None].expand(H, E // H) if gate.alike else t).reshape(E) for t in (gate.root, gate.z_half)
        )
        gated = v * z * (1 + torch.tanh(z * z_half))
        normed = (gated if gate.norm == OF_GATED else v) * root
        mean = normed.square().view(len(x), gate.groups, -1).mean(-1, keepdim=True)
        rstd = torch.rsqrt(mean + gate.eps) if gate.norm else torch.ones_like(mean)
        v = ((gated * gate.weight).view(len(x), gate.groups, -1) * rstd).flatten(1)
    if factors is not None:
        left, right = (factor.float() for factor in factors)
        v = (left @ v.view(len(x), rows, -1) @ right).flatten(1)
    out.copy_((v / scale).round().clamp(-128, 127))


__all__ = ["NO_NORM", "OF_GATED", "OF_PLAIN", "Gate", "rotate_reference"]
