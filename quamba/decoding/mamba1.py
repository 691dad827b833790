"""A Mamba-1 layer's step in five launches: norm, in_proj, conv; x_proj; dt_proj, state, gate; rotation; out_proj.

In four where x_proj's sums are made in in_proj's launch (`Launch.chained`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quamba.decoding.memory import Memory, Scratch
from quamba.decoding.plan import (
    NotFusedError,
    Product,
    Rotation,
    convolved,
    product,
    rotation_of,
    state_scale,
)
from quamba.decoding.products import Before, multiply
from quamba.kernels.convolution import Convolution, Following, Past
from quamba.kernels.launch import Launch
from quamba.kernels.triton_gemv import ADD, CODES
from quamba.kernels.triton_join import join
from quamba.kernels.triton_selective_step import SelectiveStep, selective_step
from quamba.nn.mamba1 import Mamba1Mixer
from quamba.nn.model import Layer
from quamba.nn.parameter import values_of

_MOST_STATES = 256
_MOST_RANKS = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Mamba1Layer:
    """One layer, as its kernels read it.

    Attributes:
        norm: the weight of the norm before it, and eps.
        in_proj: gives codes.
        conv: behind its first half.
        x_proj: gives codes.
        x_weight: of x_proj in in_proj's launch, as `quamba.kernels.convolution.Following` has it.
        step: between x_proj and the rotation.
        dt_weight: of dt_proj for many rows, int8 [E, K]: K is dt_rank up to a multiple of 16, what is added is zeros.
        rotation: before out_proj.
        out_proj: added to the residual stream.
    """

    norm: tuple[Tensor, float]
    in_proj: Product
    conv: Convolution
    x_proj: Product
    x_weight: Tensor
    step: SelectiveStep
    dt_weight: Tensor
    rotation: Rotation
    out_proj: Product

    @classmethod
    def of(cls, layer: Layer) -> "Mamba1Layer":
        """From a layer's modules.

        Raises:
            NotFusedError: the kernels do not run it.
        """
        mixer = layer.mixer
        if not isinstance(mixer, Mamba1Mixer):
            raise NotFusedError(f"a {type(mixer).__name__} is no Mamba-1 mixer")
        c = mixer.config
        E, R, N = c.d_inner, c.dt_rank, c.d_state
        if N > _MOST_STATES or R > _MOST_RANKS:
            raise NotFusedError(f"{N} states and a dt_rank of {R} have no kernel")
        in_proj = product(mixer.in_proj, "in_proj", coded=True)
        parameters = product(mixer.x_proj, "x_proj", coded=True)
        dt_proj = product(mixer.dt_proj, "dt_proj", coded=True, whole=False)
        scale = state_scale(mixer)
        if parameters.bias is not None or dt_proj.bias is not None or in_proj.bias is not None or scale.ndim:
            raise NotFusedError("x_proj, dt_proj or in_proj has a bias, or the state more than one scale")
        rotation = rotation_of(mixer.rotation, E, E, 1, scale.device)
        if not bool((rotation.old_place == torch.arange(E, device=scale.device)).all()):
            raise NotFusedError("channels have been reordered")
        step = SelectiveStep(
            z_scale=in_proj.out_scale[E:].contiguous(),
            u_scale=parameters.in_scale,
            parameter_factor=parameters.scale,
            parameter_scale=dt_proj.in_scale,
            dt_weight=dt_proj.codes(),
            dt_factor=dt_proj.scale,
            dt_scale=dt_proj.out_scale,
            dt_bias=values_of(mixer.dt_bias).contiguous(),
            A=(-torch.exp(values_of(mixer.A_log))).contiguous(),
            D=values_of(mixer.D).contiguous(),
            state_scale=scale,
            gain=rotation.norm,
        )
        return cls(
            norm=(layer.norm.weight, layer.norm.eps),
            in_proj=in_proj,
            conv=convolved(mixer.conv1d, 0, in_proj.out_scale[:E]),
            x_proj=parameters,
            x_weight=parameters.part.quantized_weight().operand().view(torch.int32).t().contiguous(),
            step=step,
            dt_weight=nn.functional.pad(step.dt_weight, (0, -R % 16)) if R % 16 else step.dt_weight,
            rotation=rotation,
            out_proj=product(mixer.out_proj, "out_proj", coded=False),
        )

    def memory(self, batch: int) -> Memory:
        """Buffers for a batch."""
        (E, N), device = self.step.A.shape, self.step.A.device
        return Memory(
            ring=torch.zeros(batch, *self.conv.weight.shape, dtype=torch.int8, device=device),
            state=torch.zeros(batch, E, N, dtype=torch.int8, device=device),
        )

    def scratch(self, batch: int, how: Launch) -> Scratch:  # noqa: ARG002  # as other layers have it
        """What layers hand from kernel to kernel; all layers share it."""
        device, E = self.step.A.device, len(self.step.A)
        wide, inner = self.in_proj.shape

        def codes(size: int) -> Tensor:
            return torch.zeros(batch, size, dtype=torch.int8, device=device)

        return Scratch(
            normed=codes(inner),
            projected=codes(wide),
            between=(
                codes(self.x_proj.shape[0]),
                torch.zeros(batch, self.x_proj.shape[0], dtype=torch.int32, device=device),
            ),
            values=torch.zeros(batch, E, device=device),
            codes=codes(E),
        )

    def launch(
        self,
        residual: Tensor,
        position: Tensor,
        memory: Memory,
        scratch: Scratch,
        how: Launch,
    ) -> None:
        """One token: residual float32 [Bt, D] is added to, memory brought up to date."""
        batch = len(residual)
        parameters, sums = scratch.between
        chained = how.chained and batch <= how.few
        before, conv = Before(*self.norm, scratch.normed), (self.conv, Past(memory.ring, position))
        following = Following(self.x_weight, sums) if chained else None
        multiply(self.in_proj, residual, scratch.projected, CODES, how, before, conv, following)
        if not chained:
            multiply(self.x_proj, scratch.projected[:, : len(self.step.A)], parameters, CODES, how)
        selective_step(
            self.step,
            scratch.projected,
            sums if chained else parameters,
            memory.state,
            scratch.values,
            block=how.select_channels,
            pdl=how.pdl,
        )
        join(
            scratch.values,
            None,
            self.rotation.factors,
            self.out_proj.in_scale,
            scratch.codes,
            rows=self.rotation.rows,
            row_block=how.join_rows(batch),
            warps=how.join_warps,
            pdl=how.pdl,
            clear=sums if chained else None,
        )
        multiply(self.out_proj, scratch.codes, residual, ADD, how)


__all__ = ["Mamba1Layer"]
