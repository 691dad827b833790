"""A Mamba-2 layer over whole prompts in seven launches: norm, in_proj, convolution, times, recurrence, gate with
norm and rotation, out_proj."""

from dataclasses import dataclass

import torch
from torch import Tensor

from quamba.decoding.mamba2 import Mamba2Layer
from quamba.decoding.plan import NotFusedError
from quamba.kernels.gated_rotation import Gate
from quamba.kernels.launch import Launch
from quamba.kernels.rotation_factors import Factors
from quamba.kernels.scaled_chunk_scan import CHUNK, ChunkScan
from quamba.kernels.triton_chunk_scan import chunk_scan
from quamba.kernels.triton_chunk_times import chunk_times
from quamba.nn.cache import LayerCache
from quamba.prompts.parts import add, convolve, factors_of, project, remember, rotate, state_before


@dataclass(frozen=True, slots=True, eq=False)
class Mamba2Prompt:
    """A layer as these kernels read it.

    Attributes:
        layer: as a step's kernels do.
        scan: its recurrence.
        dt_scale: of dt's codes, float32 [H].
        gate: behind the recurrence.
        factors: its rotation; None: plain PyTorch rotates.
    """

    layer: Mamba2Layer
    scan: ChunkScan
    dt_scale: Tensor
    gate: Gate
    factors: Factors | None

    @classmethod
    def of(cls, layer: Mamba2Layer) -> "Mamba2Prompt":
        """From a layer.

        Raises:
            NotFusedError: the kernels do not run it.
        """
        scan = ChunkScan.of(layer.step)
        if scan is None:
            raise NotFusedError("heads are smaller or larger than the recurrence in chunks takes them")
        E, H, _, G, _ = layer.step.sizes
        dt_scale = layer.step.projected_scale[-H:].contiguous()
        gate = Gate.of(layer.step, scan.gain, layer.gated, layer.out_proj.in_scale)
        return cls(layer, scan, dt_scale, gate, factors_of(layer.rotation, E, G))

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
        E, H, P, G, N = step.sizes
        (batch, length), device = residual.shape[:2], residual.device
        chunks = -(-length // CHUNK)
        projected = project(layer.norm, layer.in_proj, residual, how)
        conv = convolve(projected, layer.conv, cache, how)
        decay, entry = (torch.empty(batch, H, chunks, CHUNK, device=device) for _ in range(2))
        columns = torch.empty(batch, chunks * CHUNK, 2 * G * N, dtype=torch.float16, device=device)
        given = (self.dt_scale, step.dt_bias, step.A, self.scan.bound, step.dt_limit, lengths)
        chunk_times(projected, conv, *given, decay, entry, columns, pdl=how.pdl)
        before = state_before(cache)
        after = torch.empty(batch, H, P, N, dtype=torch.int8, device=device)
        values = torch.empty(batch, length, E, dtype=torch.float16, device=device)
        chunk_scan(self.scan, conv, decay, entry, columns, before, after, values, device=how.device, pdl=how.pdl)
        remember(cache, projected, layer.conv, lengths, after, state_scale)
        codes = rotate(
            layer.rotation,
            self.factors,
            values.flatten(0, 1),
            layer.out_proj.in_scale,
            how,
            projected=projected.flatten(0, 1),
            gate=self.gate,
        )
        add(layer.out_proj, codes, residual, how)


__all__ = ["Mamba2Prompt"]
