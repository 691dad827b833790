"""A Mamba-2 layer's step in four launches: norm, in_proj and conv; state and gate; norm and rotation; out_proj."""

from dataclasses import dataclass

import torch
from torch import Tensor

from quamba.decoding.memory import Memory, Scratch
from quamba.decoding.plan import NotFusedError, Product, Rotation, convolved, product, state_scales
from quamba.decoding.products import Before, multiply
from quamba.decoding.ssd import SSDParts
from quamba.kernels.convolution import Convolution, Past
from quamba.kernels.launch import Launch
from quamba.kernels.triton_gemv import ADD, CODES
from quamba.kernels.triton_join import join
from quamba.kernels.triton_ssd_step import SSDStep, ssd_step
from quamba.nn.mamba2 import Mamba2Mixer
from quamba.nn.model import Layer


@dataclass(frozen=True, slots=True, eq=False)
class Mamba2Layer:
    """One layer, as its kernels read it.

    Attributes:
        norm: the weight of the norm before it, and eps.
        in_proj: gives codes.
        conv: behind some of them.
        step: between the projections.
        rotation: before out_proj.
        gated: eps of the gated norm, or None without one.
        out_proj: added to the residual stream.
    """

    norm: tuple[Tensor, float]
    in_proj: Product
    conv: Convolution
    step: SSDStep
    rotation: Rotation
    gated: float | None
    out_proj: Product

    @classmethod
    def of(cls, layer: Layer) -> "Mamba2Layer":
        """From a layer's modules.

        Raises:
            NotFusedError: the kernels do not run it.
        """
        mixer = layer.mixer
        if not isinstance(mixer, Mamba2Mixer):
            raise NotFusedError(f"a {type(mixer).__name__} is no Mamba-2 mixer")
        c, parts = mixer.config, SSDParts.of(mixer)
        E, *_, N = parts.sizes
        in_proj = product(mixer.in_proj, "in_proj", coded=True)
        projected = in_proj.out_scale
        conv = convolved(mixer.conv1d, E, projected[E : E + c.conv_dim])
        table, rows = state_scales(mixer, E, N)
        step = SSDStep(
            sizes=parts.sizes,
            projected_scale=torch.cat((projected[:E], conv.scale, projected[E + c.conv_dim :])),
            dt_bias=parts.dt_bias,
            A=parts.A,
            D=parts.D,
            dt_limit=c.dt_limit,
            state_table=table,
            state_inverse=1 / table,
            state_rows=rows,
            norm_weight=parts.norm_weight,
            norm_first=parts.norm_first,
            old_head=parts.rotation.old_head,
            old_place=parts.rotation.old_place,
        )
        return cls(
            norm=(layer.norm.weight, layer.norm.eps),
            in_proj=in_proj,
            conv=conv,
            step=step,
            rotation=parts.rotation,
            gated=parts.eps,
            out_proj=product(mixer.out_proj, "out_proj", coded=False),
        )

    def memory(self, batch: int) -> Memory:
        """Buffers for a batch."""
        _, H, P, _, N = self.step.sizes
        device = self.step.A.device
        return Memory(
            ring=torch.zeros(batch, *self.conv.weight.shape, dtype=torch.int8, device=device),
            state=torch.zeros(batch, H, P, N, dtype=torch.int8, device=device),
        )

    def scratch(self, batch: int, how: Launch) -> Scratch:
        """What layers hand from kernel to kernel; all layers share it."""
        E, H, P, _, N = self.step.sizes
        device = self.step.A.device
        wide, inner = self.in_proj.shape
        parts = how.parts(P, N)
        return Scratch(
            normed=torch.zeros(batch, inner, dtype=torch.int8, device=device),
            projected=torch.zeros(batch, wide, dtype=torch.int8, device=device),
            between=(torch.zeros(batch, H * parts, device=device),),
            values=torch.zeros(batch, E, device=device),
            codes=torch.zeros(batch, E, dtype=torch.int8, device=device),
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
        before, conv = Before(*self.norm, scratch.normed), (self.conv, Past(memory.ring, position))
        multiply(self.in_proj, residual, scratch.projected, CODES, how, before, conv)
        (squares,) = scratch.between
        ssd_step(
            self.step,
            scratch.projected,
            memory.state,
            scratch.values,
            squares,
            warps=how.state_warps(batch),
            pdl=how.pdl,
        )
        join(
            scratch.values,
            None if self.gated is None else squares,
            self.rotation.factors,
            self.out_proj.in_scale,
            scratch.codes,
            rows=self.rotation.rows,
            groups=self.step.sizes[3],
            eps=self.gated or 0.0,
            row_block=how.join_rows(batch),
            warps=how.join_warps,
            pdl=how.pdl,
        )
        multiply(self.out_proj, scratch.codes, residual, ADD, how)


__all__ = ["Mamba2Layer"]
