"""A Mamba-2 layer's step in four launches: norm and in_proj; conv, state and gate; norm and rotation; out_proj."""

from dataclasses import dataclass

import torch
from torch import Tensor

from quamba.decoding.plan import NotFusedError, Product, convolved, product, rotation_of, state_scales
from quamba.kernels.launch import Launch
from quamba.kernels.triton_gemv import ADD, CODES, gemv
from quamba.kernels.triton_join import join
from quamba.kernels.triton_ssd_step import SSDStep, ssd_step
from quamba.nn.cache import LayerCache
from quamba.nn.mamba2 import Mamba2Mixer, PlainGate
from quamba.nn.model import Layer
from quamba.nn.norm import GatedRMSNorm
from quamba.nn.parameter import values_of
from quamba.qtypes import QTensor


@dataclass(frozen=True, slots=True)
class Mamba2Layer:
    """One layer, as its kernels read it.

    Attributes:
        norm: the weight of the norm before it, and eps.
        in_proj: gives codes.
        step: between the projections.
        left: the rotation's factor across heads, or None.
        gated: eps of the gated norm, or None without one.
        out_proj: added to the residual stream.
    """

    norm: tuple[Tensor, float]
    in_proj: Product
    step: SSDStep
    left: Tensor | None
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
        c = mixer.config
        E, H, P, G, N = c.d_inner, c.nheads, c.headdim, c.ngroups, c.d_state
        if P.bit_count() != 1 or N.bit_count() != 1 or P < 8 or N < 8 or P * N > 1 << 15 or H > 512:
            raise NotFusedError(f"{H} heads of {P} channels and {N} state columns have no kernel")
        gate = mixer.norm
        if not isinstance(gate, GatedRMSNorm | PlainGate):
            raise NotFusedError(f"a {type(gate).__name__} is no gate that is known")
        in_proj = product(mixer.in_proj, "in_proj", coded=True)
        projected = in_proj.out_scale
        conv = convolved(mixer.conv1d, projected[E : E + c.conv_dim])
        rotation = rotation_of(mixer.rotation, E, P, projected.device)
        table, rows = state_scales(mixer, E, N)
        D = values_of(mixer.D)
        weight = gate.weight if isinstance(gate, GatedRMSNorm) else torch.ones(E, device=projected.device)
        step = SSDStep(
            sizes=(E, H, P, G, N, c.d_conv),
            projected_scale=projected,
            conv_weight=conv.weight,
            conv_factor=conv.factor,
            conv_bias=conv.bias,
            conv_scale=conv.scale,
            dt_bias=values_of(mixer.dt_bias).contiguous(),
            A=-torch.exp(values_of(mixer.A_log)),
            D=(D if c.D_has_hdim else D.repeat_interleave(P)).contiguous(),
            dt_limit=c.dt_limit,
            state_table=table,
            state_rows=rows,
            norm_weight=weight * rotation.norm,
            norm_first=isinstance(gate, GatedRMSNorm) and gate.norm_before_gate,
            right=rotation.right,
            old_head=rotation.old_row,
            old_place=rotation.old_place,
        )
        return cls(
            norm=(layer.norm.weight, layer.norm.eps),
            in_proj=in_proj,
            step=step,
            left=rotation.left,
            gated=gate.eps if isinstance(gate, GatedRMSNorm) else None,
            out_proj=product(mixer.out_proj, "out_proj", coded=False),
        )

    def memory(self, batch: int) -> "Mamba2Memory":
        """Buffers for a batch."""
        E, H, P, G, N, K = self.step.sizes
        device = self.in_proj.codes.device
        return Mamba2Memory(
            ring=torch.zeros(batch, K, E + 2 * G * N, dtype=torch.int8, device=device),
            state=torch.zeros(batch, H, P, N, dtype=torch.int8, device=device),
        )

    def scratch(self, batch: int) -> "Mamba2Scratch":
        """What layers hand from kernel to kernel; all layers share it."""
        E, H = self.step.sizes[:2]
        device = self.in_proj.codes.device
        return Mamba2Scratch(
            projected=torch.zeros(batch, len(self.in_proj.codes), dtype=torch.int8, device=device),
            values=torch.zeros(batch, E, device=device),
            squares=torch.zeros(batch, H, device=device),
            codes=torch.zeros(batch, E, dtype=torch.int8, device=device),
        )

    def launch(
        self, residual: Tensor, position: Tensor, memory: "Mamba2Memory", scratch: "Mamba2Scratch", how: Launch
    ) -> None:
        """One token: residual float32 [Bt, D] is added to, memory brought up to date."""
        a, b = self.in_proj, self.out_proj
        weight, eps = self.norm
        gemv(
            residual,
            a.codes,
            a.scale,
            a.bias,
            scratch.projected,
            kind=CODES,
            norm=(weight, a.in_scale, eps),
            **how.gemv(*a.codes.shape),
        )
        ssd_step(
            self.step,
            scratch.projected,
            memory.ring,
            position,
            memory.state,
            scratch.values,
            scratch.squares,
            warps=how.step_warps,
            pdl=how.pdl,
        )
        _, H, _, G, _, _ = self.step.sizes
        join(
            scratch.values,
            None if self.gated is None else scratch.squares,
            self.left,
            b.in_scale,
            scratch.codes,
            rows=H,
            groups=G,
            eps=self.gated or 0.0,
            warps=how.join_warps,
            pdl=how.pdl,
        )
        gemv(scratch.codes, b.codes, b.scale, b.bias, residual, kind=ADD, **how.gemv(*b.codes.shape))


@dataclass(frozen=True, slots=True)
class Mamba2Memory:
    """A layer's memory in fixed buffers: ring int8 [Bt, K, C], state int8 [Bt, H, P, N]."""

    ring: Tensor
    state: Tensor

    def load(self, cache: LayerCache) -> None:
        """Take over what a cache remembers, as if the next token's time were K - 1."""
        self.ring.zero_()
        self.state.zero_()
        if cache.conv is not None:
            self.ring[: len(cache.conv), :-1] = cache.conv
        if isinstance(cache.state, QTensor):
            self.state[: len(cache.state.codes)] = cache.state.codes

    def store(self, batch: int, time: int, scale: Tensor) -> LayerCache:
        """A cache of the first rows before the token at `time`; `scale` is the state's."""
        K = self.ring.shape[1]
        order = [(time + 1 + tap) % K for tap in range(K - 1)]
        return LayerCache(self.ring[:batch, order].clone(), QTensor(self.state[:batch].clone(), scale))


@dataclass(frozen=True, slots=True)
class Mamba2Scratch:
    """projected int8 [Bt, W], values float32 [Bt, E], squares float32 [Bt, H], codes int8 [Bt, E]."""

    projected: Tensor
    values: Tensor
    squares: Tensor
    codes: Tensor


__all__ = ["Mamba2Layer", "Mamba2Memory", "Mamba2Scratch"]
