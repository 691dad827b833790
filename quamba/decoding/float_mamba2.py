"""A Mamba-2 layer's step in floats, with 4-bit weights (W4A16), in five launches.

Norm; in_proj; conv, state and gate; norm and rotation; out_proj. More rows at once take one more before out_proj.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from quamba.decoding.halves import HalfProduct, Room, half_product, multiply_half, multiply_room
from quamba.decoding.memory import Memory
from quamba.decoding.plan import NotFusedError, Rotation, rotation_of
from quamba.kernels.launch import Launch
from quamba.kernels.triton_float_step import FloatStep, float_step
from quamba.kernels.triton_gemv import ADD, FLOAT
from quamba.kernels.triton_join import join
from quamba.kernels.triton_split import NEIGHBOURS
from quamba.nn.conv import CausalConv1d
from quamba.nn.mamba2 import Mamba2Mixer, PlainGate
from quamba.nn.model import Layer
from quamba.nn.norm import GatedRMSNorm
from quamba.nn.parameter import values_of


@dataclass(frozen=True, slots=True)
class FloatScratch:
    """What a layer's kernels hand on; all such layers share it.

    Attributes:
        before: what in_proj reads.
        projected: what it gives, float32 [Bt, W].
        squares: sums for the norm, float32 [Bt, H parts].
        values: float32 [Bt, E].
        rotated: float32 [Bt, E].
        behind: what out_proj reads.
    """

    before: Room
    projected: Tensor
    squares: Tensor
    values: Tensor
    rotated: Tensor
    behind: Room


@dataclass(frozen=True, slots=True, eq=False)
class FloatMamba2Layer:
    """One layer, as its kernels read it.

    Attributes:
        norm: the weight of the norm before it, and eps.
        in_proj: gives floats.
        step: between the projections.
        rotation: before out_proj.
        gated: eps of the gated norm, or None without one.
        out_proj: added to the residual stream.
    """

    norm: tuple[Tensor, float]
    in_proj: HalfProduct
    step: FloatStep
    rotation: Rotation
    gated: float | None
    out_proj: HalfProduct

    @classmethod
    def of(cls, layer: Layer) -> "FloatMamba2Layer":
        """From a layer's modules.

        Raises:
            NotFusedError: the kernels do not run it.
        """
        mixer = layer.mixer
        if not isinstance(mixer, Mamba2Mixer):
            raise NotFusedError(f"a {type(mixer).__name__} of floats is no Mamba-2 mixer")
        c = mixer.config
        E, H, P, G, N = c.d_inner, c.nheads, c.headdim, c.ngroups, c.d_state
        if P.bit_count() != 1 or N.bit_count() != 1 or P < 8 or N < 8 or P * N > 1 << 15:
            raise NotFusedError(f"{H} heads of {P} channels and {N} state columns have no kernel")
        gate, conv = mixer.norm, mixer.conv1d
        if not isinstance(gate, GatedRMSNorm | PlainGate):
            raise NotFusedError(f"a {type(gate).__name__} is no gate that is known")
        if not isinstance(conv, CausalConv1d) or mixer.state_scale is not None:
            raise NotFusedError("a convolution or a state of codes meets floats")
        in_proj = half_product(mixer.in_proj, "in_proj")
        device = in_proj.codes.device
        rotation = rotation_of(mixer.rotation, E, P, G, device)
        D = values_of(mixer.D)
        weight = gate.weight if isinstance(gate, GatedRMSNorm) else torch.ones(E, device=device)
        step = FloatStep(
            sizes=(E, H, P, G, N),
            conv_weight=conv.weight.t().contiguous(),
            conv_bias=torch.zeros(c.conv_dim, device=device) if conv.bias is None else conv.bias,
            dt_bias=values_of(mixer.dt_bias).contiguous(),
            A=-torch.exp(values_of(mixer.A_log)),
            D=(D if c.D_has_hdim else D.repeat_interleave(P)).contiguous(),
            dt_limit=c.dt_limit,
            norm_weight=weight * rotation.norm,
            norm_first=isinstance(gate, GatedRMSNorm) and gate.norm_before_gate,
            old_head=rotation.old_head,
            old_place=rotation.old_place,
        )
        return cls(
            norm=(layer.norm.weight, layer.norm.eps),
            in_proj=in_proj,
            step=step,
            rotation=rotation,
            gated=gate.eps if isinstance(gate, GatedRMSNorm) else None,
            out_proj=half_product(mixer.out_proj, "out_proj"),
        )

    def memory(self, batch: int) -> Memory:
        """Buffers for a batch."""
        _, H, P, _, N = self.step.sizes
        device = self.step.A.device
        ring = torch.zeros(batch, *self.step.conv_weight.shape, device=device)
        return Memory(ring, torch.zeros(batch, H, P, N, device=device))

    def scratch(self, batch: int, how: Launch) -> FloatScratch:
        """What layers hand from kernel to kernel; all layers share it."""
        E, H, P, _, N = self.step.sizes
        device = self.step.A.device
        wide, inner = self.in_proj.shape
        return FloatScratch(
            before=Room.of(batch, inner, how, device),
            projected=torch.zeros(batch, wide, device=device),
            squares=torch.zeros(batch, H * how.parts(P, N), device=device),
            values=torch.zeros(batch, E, device=device),
            rotated=torch.zeros(batch, E, device=device),
            behind=Room.of(batch, E, how, device),
        )

    def launch(
        self,
        residual: Tensor,
        position: Tensor,
        memory: Memory,
        scratch: FloatScratch,
        how: Launch,
    ) -> None:
        """One token: residual float32 [Bt, D] is added to, memory brought up to date."""
        batch, E = len(residual), self.step.sizes[0]
        multiply_half(self.in_proj, residual, scratch.before, scratch.projected, FLOAT, how, self.norm)
        float_step(
            self.step,
            scratch.projected,
            memory.ring,
            position,
            memory.state,
            scratch.values,
            scratch.squares,
            warps=how.state_warps(batch),
            pdl=how.pdl,
        )
        # One row goes on as bytes, where its places are whole units of them.
        bytes_ = scratch.behind.bytes if E // self.rotation.rows % NEIGHBOURS == 0 else None
        join(
            scratch.values,
            None if self.gated is None else scratch.squares,
            self.rotation.factors,
            None,
            scratch.rotated if bytes_ is None else bytes_,
            rows=self.rotation.rows,
            groups=self.step.sizes[3],
            eps=self.gated or 0.0,
            row_block=how.join_rows(batch),
            warps=how.join_warps,
            pdl=how.pdl,
        )
        if bytes_ is None:
            multiply_half(self.out_proj, scratch.rotated, scratch.behind, residual, ADD, how)
        else:
            multiply_room(self.out_proj, scratch.behind, residual, ADD, how)


__all__ = ["FloatMamba2Layer", "FloatScratch"]
