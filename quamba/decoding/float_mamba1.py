"""A Mamba-1 layer's step in floats, with 4-bit weights (W4A16), in seven launches.

Norm; in_proj; conv; x_proj; dt_proj, state and gate; rotation; out_proj. More rows at once take one more before x_proj
and before out_proj.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from quamba.decoding.halves import HalfProduct, Room, float_convolution, half_product, multiply_half, multiply_room
from quamba.decoding.memory import Memory
from quamba.decoding.plan import NotFusedError, Rotation, rotation_of
from quamba.kernels.launch import Launch
from quamba.kernels.triton_conv_split import conv_split
from quamba.kernels.triton_float_selective import FloatSelectiveStep, float_selective_step
from quamba.kernels.triton_gemv import ADD, FLOAT
from quamba.kernels.triton_halves import halves
from quamba.kernels.triton_join import join
from quamba.kernels.triton_split import NEIGHBOURS
from quamba.nn.linear import Linear
from quamba.nn.mamba1 import Mamba1Mixer
from quamba.nn.model import Layer
from quamba.nn.parameter import values_of

_MOST_STATES = 256
_MOST_RANKS = 512


@dataclass(frozen=True, slots=True)
class FloatMamba1Scratch:
    """What a layer's kernels hand on; all such layers share it.

    Attributes:
        before: what in_proj reads.
        projected: what it gives, float32 [Bt, 2E].
        convolved: float32 [Bt, E].
        between: what x_proj reads.
        parameters: what it gives, float32 [Bt, R + 2N].
        values: float32 [Bt, E].
        rotated: float32 [Bt, E].
        behind: what out_proj reads.
    """

    before: Room
    projected: Tensor
    convolved: Tensor
    between: Room
    parameters: Tensor
    values: Tensor
    rotated: Tensor
    behind: Room


@dataclass(frozen=True, slots=True, eq=False)
class FloatMamba1Layer:
    """One layer, as its kernels read it.

    Attributes:
        norm: the weight of the norm before it, and eps.
        in_proj: gives floats.
        conv: the convolution's weight float32 [taps, E] and bias float32 [E].
        x_proj: gives floats.
        step: between x_proj and the rotation.
        rotation: before out_proj.
        out_proj: added to the residual stream.
    """

    norm: tuple[Tensor, float]
    in_proj: HalfProduct
    conv: tuple[Tensor, Tensor]
    x_proj: HalfProduct
    step: FloatSelectiveStep
    rotation: Rotation
    out_proj: HalfProduct

    @classmethod
    def of(cls, layer: Layer) -> "FloatMamba1Layer":
        """From a layer's modules.

        Raises:
            NotFusedError: the kernels do not run it.
        """
        mixer = layer.mixer
        if not isinstance(mixer, Mamba1Mixer):
            raise NotFusedError(f"a {type(mixer).__name__} of floats is no Mamba-1 mixer")
        c, dt_proj = mixer.config, mixer.dt_proj
        E, R, N = c.d_inner, c.dt_rank, c.d_state
        if N > _MOST_STATES or R > _MOST_RANKS:
            raise NotFusedError(f"{N} states and a dt_rank of {R} have no kernel")
        if not isinstance(dt_proj, Linear) or dt_proj.bias is not None:
            raise NotFusedError("dt_proj is no product of floats, or has a bias")
        in_proj = half_product(mixer.in_proj, "in_proj")
        device = in_proj.codes.device
        rotation = rotation_of(mixer.rotation, E, E, 1, device)
        if not bool((rotation.old_place == torch.arange(E, device=device)).all()):
            raise NotFusedError("channels have been reordered")
        step = FloatSelectiveStep(
            dt_weight=dt_proj.weight.contiguous(),
            dt_bias=values_of(mixer.dt_bias).contiguous(),
            A=(-torch.exp(values_of(mixer.A_log))).contiguous(),
            D=values_of(mixer.D).contiguous(),
            gain=rotation.norm,
        )
        return cls(
            norm=(layer.norm.weight, layer.norm.eps),
            in_proj=in_proj,
            conv=float_convolution(mixer),
            x_proj=half_product(mixer.x_proj, "x_proj"),
            step=step,
            rotation=rotation,
            out_proj=half_product(mixer.out_proj, "out_proj"),
        )

    def memory(self, batch: int) -> Memory:
        """Buffers for a batch."""
        device = self.step.A.device
        ring = torch.zeros(batch, *self.conv[0].shape, device=device)
        return Memory(ring, torch.zeros(batch, *self.step.A.shape, device=device))

    def scratch(self, batch: int, how: Launch) -> FloatMamba1Scratch:
        """What layers hand from kernel to kernel; all layers share it."""
        device, E = self.step.A.device, len(self.step.A)
        wide, inner = self.in_proj.shape
        return FloatMamba1Scratch(
            before=Room.of(batch, inner, how, device),
            projected=torch.zeros(batch, wide, device=device),
            convolved=torch.zeros(batch, E, device=device),
            between=Room.of(batch, E, how, device),
            parameters=torch.zeros(batch, self.x_proj.shape[0], device=device),
            values=torch.zeros(batch, E, device=device),
            rotated=torch.zeros(batch, E, device=device),
            behind=Room.of(batch, E, how, device),
        )

    def launch(
        self,
        residual: Tensor,
        position: Tensor,
        memory: Memory,
        scratch: FloatMamba1Scratch,
        how: Launch,
    ) -> None:
        """One token: residual float32 [Bt, D] is added to, memory brought up to date."""
        batch, E, s = len(residual), len(self.step.A), scratch
        multiply_half(self.in_proj, residual, s.before, s.projected, FLOAT, how, self.norm)
        u, z = s.projected[:, :E], s.projected[:, E:]
        conv_split(u, memory.ring, position, *self.conv, s.convolved, s.between.bytes, pdl=how.pdl)
        if s.between.halves is not None:
            halves(s.convolved, s.between.halves, pdl=how.pdl)
        multiply_room(self.x_proj, s.between, s.parameters, FLOAT, how, block=4)
        float_selective_step(
            self.step,
            s.convolved,
            z,
            s.parameters,
            memory.state,
            s.values,
            block=how.select_channels,
            pdl=how.pdl,
        )
        # One row goes on as bytes, where its places are whole units of them.
        bytes_ = s.behind.bytes if E // self.rotation.rows % NEIGHBOURS == 0 else None
        join(
            s.values,
            None,
            self.rotation.factors,
            None,
            s.rotated if bytes_ is None else bytes_,
            rows=self.rotation.rows,
            row_block=how.join_rows(batch),
            warps=how.join_warps,
            pdl=how.pdl,
        )
        if bytes_ is None:
            multiply_half(self.out_proj, s.rotated, s.behind, residual, ADD, how)
        else:
            multiply_room(self.out_proj, s.behind, residual, ADD, how)


__all__ = ["FloatMamba1Layer", "FloatMamba1Scratch"]
