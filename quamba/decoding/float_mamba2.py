"""A Mamba-2 layer's step in floats, with 4-bit weights (W4A16), in five launches.

Norm; in_proj; conv, state and gate; norm and rotation; out_proj. More rows at once take one more before out_proj.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from quamba.decoding.halves import HalfProduct, Room, float_convolution, half_product, multiply_half, multiply_room
from quamba.decoding.memory import Memory
from quamba.decoding.plan import NotFusedError, Rotation
from quamba.decoding.ssd import SSDParts
from quamba.kernels.launch import Launch
from quamba.kernels.triton_float_step import FloatStep, float_step
from quamba.kernels.triton_gemv import ADD, FLOAT
from quamba.kernels.triton_join import join
from quamba.kernels.triton_split import NEIGHBOURS
from quamba.nn.mamba2 import Mamba2Mixer
from quamba.nn.model import Layer


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
        parts = SSDParts.of(mixer)
        conv_weight, conv_bias = float_convolution(mixer)
        step = FloatStep(
            sizes=parts.sizes,
            conv_weight=conv_weight,
            conv_bias=conv_bias,
            dt_bias=parts.dt_bias,
            A=parts.A,
            D=parts.D,
            dt_limit=mixer.config.dt_limit,
            norm_weight=parts.norm_weight,
            norm_first=parts.norm_first,
            old_head=parts.rotation.old_head,
            old_place=parts.rotation.old_place,
        )
        return cls(
            norm=(layer.norm.weight, layer.norm.eps),
            in_proj=half_product(mixer.in_proj, "in_proj"),
            step=step,
            rotation=parts.rotation,
            gated=parts.eps,
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
