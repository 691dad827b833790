"""What a step of Mamba-2 reads of a mixer, whether its activations are codes or floats."""

from dataclasses import dataclass

import torch
from torch import Tensor

from quamba.decoding.plan import NotFusedError, Rotation, rotation_of
from quamba.nn.mamba2 import Mamba2Mixer, PlainGate
from quamba.nn.norm import GatedRMSNorm
from quamba.nn.parameter import values_of

# Of a head's state, channels times columns: a program has them in registers.
_MOST_STATE = 1 << 15


@dataclass(frozen=True, slots=True, eq=False)
class SSDParts:
    """The recurrence, its gate and its rotation, as `SSDStep` and `FloatStep` have them.

    Attributes:
        sizes: E, H, P, G, N.
        A: float32 [H], negative.
        D: float32 [E].
        dt_bias: float32 [H].
        rotation: before out_proj.
        norm_weight: float32 [E], times what makes the rotation's factors orthonormal.
        norm_first: the gated norm looks at y before the gate.
        eps: of the gated norm, or None without one.
    """

    sizes: tuple[int, int, int, int, int]
    A: Tensor
    D: Tensor
    dt_bias: Tensor
    rotation: Rotation
    norm_weight: Tensor
    norm_first: bool
    eps: float | None

    @classmethod
    def of(cls, mixer: Mamba2Mixer) -> "SSDParts":
        """From a mixer.

        Raises:
            NotFusedError: the kernels do not run it.
        """
        c, gate = mixer.config, mixer.norm
        E, H, P, G, N = c.d_inner, c.nheads, c.headdim, c.ngroups, c.d_state
        if P.bit_count() != 1 or N.bit_count() != 1 or P < 8 or N < 8 or P * N > _MOST_STATE:
            raise NotFusedError(f"{H} heads of {P} channels and {N} state columns have no kernel")
        if not isinstance(gate, GatedRMSNorm | PlainGate):
            raise NotFusedError(f"a {type(gate).__name__} is no gate that is known")
        normed = gate if isinstance(gate, GatedRMSNorm) else None
        D, dt_bias = values_of(mixer.D), values_of(mixer.dt_bias).contiguous()
        rotation = rotation_of(mixer.rotation, E, P, G, D.device)
        weight = torch.ones(E, device=D.device) if normed is None else normed.weight
        return cls(
            sizes=(E, H, P, G, N),
            A=-torch.exp(values_of(mixer.A_log)),
            D=(D if c.D_has_hdim else D.repeat_interleave(P)).contiguous(),
            dt_bias=dt_bias,
            rotation=rotation,
            norm_weight=weight * rotation.norm,
            norm_first=normed is not None and normed.norm_before_gate,
            eps=None if normed is None else normed.eps,
        )


__all__ = ["SSDParts"]
