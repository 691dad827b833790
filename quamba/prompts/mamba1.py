"""A Mamba-1 layer over whole prompts: norm, in_proj, convolution, x_proj, dt_proj, recurrence, rotation, out_proj."""

from dataclasses import dataclass

import torch
from torch import Tensor

from quamba.decoding.mamba1 import Mamba1Layer
from quamba.kernels.launch import Launch
from quamba.kernels.rotation_factors import Factors
from quamba.kernels.triton_gemm import gemm, gemm_reference
from quamba.kernels.triton_gemv import CODES
from quamba.kernels.triton_selective_scan import selective_scan
from quamba.nn.cache import LayerCache
from quamba.prompts.parts import add, convolve, factors_of, multiply, project, remember, rotate, state_before


@dataclass(frozen=True, slots=True, eq=False)
class Mamba1Prompt:
    """A layer as these kernels read it.

    Attributes:
        layer: as a step's kernels do.
        factors: its rotation; None: plain PyTorch rotates.
    """

    layer: Mamba1Layer
    factors: Factors | None

    @classmethod
    def of(cls, layer: Mamba1Layer) -> "Mamba1Prompt":
        """From a layer."""
        return cls(layer, factors_of(layer.rotation, len(layer.step.A)))

    def read(
        self,
        residual: Tensor,
        lengths: Tensor | None,
        cache: LayerCache | None,
        state_scale: Tensor | None,
        how: Launch,
    ) -> None:
        """Add the layer's output for a batch of prompts, and bring what it remembers up to date.

        Args:
            residual: float32 [Bt, L, D], added to.
            lengths: real tokens of each right-padded row, int64 [Bt]; None: all.
            cache: gone on from, and brought up to date; None: nothing is remembered.
            state_scale: of the state's codes, as a cache has it.
            how: to launch.
        """
        layer, step = self.layer, self.layer.step
        (E, N), R = step.A.shape, step.dt_weight.shape[1]
        (batch, length), device = residual.shape[:2], residual.device
        projected = project(layer.norm, layer.in_proj, residual, how)
        conv = convolve(projected, layer.conv, cache, how)
        parameters = torch.empty(batch, length, R + 2 * N, dtype=torch.int8, device=device)
        multiply(layer.x_proj, conv.flatten(0, 1), parameters.flatten(0, 1), CODES, how)
        dt = _time_steps(layer, parameters.flatten(0, 1), how).view(batch, length, E)
        before = state_before(cache)
        after = torch.empty(batch, E, N, dtype=torch.int8, device=device)
        # Behind a row's end the recurrence writes nothing, and the rotation takes tokens together.
        values = (torch.empty if lengths is None else torch.zeros)(batch, length, E, device=device)
        selective_scan(
            step, conv, dt, parameters, projected, before, lengths, values, after, device=how.device, pdl=how.pdl
        )
        remember(cache, projected, layer.conv, lengths, after, state_scale)
        codes = rotate(layer.rotation, self.factors, values.flatten(0, 1), layer.out_proj.in_scale, how)
        add(layer.out_proj, codes, residual, how)


def _time_steps(layer: Mamba1Layer, parameters: Tensor, how: Launch) -> Tensor:
    """dt_proj's codes, int8 [M, E], of x_proj's, int8 [M, R + 2N]."""
    weight, factor = layer.dt_weight, layer.step.dt_factor
    out = torch.empty(len(parameters), len(weight), dtype=torch.int8, device=parameters.device)
    inner = weight.shape[1]
    if inner <= parameters.shape[1]:
        gemm(parameters[:, :inner], weight, factor, None, out, kind=CODES, **how.gemm())
    else:
        gemm_reference(
            parameters[:, : layer.step.dt_weight.shape[1]], layer.step.dt_weight, factor, None, out, kind=CODES
        )
    return out


__all__ = ["Mamba1Prompt"]
