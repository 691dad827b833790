"""A Mamba-2 layer over whole prompts: norm, in_proj, convolution, recurrence, norm and rotation, out_proj."""

import torch
from torch import Tensor

from quamba.decoding.mamba2 import Mamba2Layer
from quamba.kernels.causal_conv1d import last_inputs
from quamba.kernels.launch import Launch
from quamba.kernels.triton_chunk_scan import chunk_scan_reference
from quamba.kernels.triton_conv_prompt import conv_prompt
from quamba.nn.cache import LayerCache
from quamba.prompts.parts import add, project, rotate
from quamba.qtypes import QTensor


def read(
    layer: Mamba2Layer,
    residual: Tensor,
    lengths: Tensor | None,
    cache: LayerCache | None,
    state_scale: Tensor,
    how: Launch,
) -> None:
    """Add a layer's output for a batch of prompts, and bring what it remembers up to date.

    Args:
        layer: as its kernels read it.
        residual: float32 [Bt, L, D], added to.
        lengths: real tokens of each right-padded row, int64 [Bt]; None: all.
        cache: gone on from, and brought up to date; None: nothing is remembered.
        state_scale: of the state's codes, as a cache has it.
        how: to launch.
    """
    E, H, P, G, N = layer.step.sizes
    (batch, length), device = residual.shape[:2], residual.device
    projected = project(layer.norm, layer.in_proj, residual, how)
    taps, channels = layer.conv.weight.shape
    conv = torch.empty(batch, length, channels, dtype=torch.int8, device=device)
    conv_prompt(projected, layer.conv, None if cache is None else cache.conv, conv, pdl=how.pdl)
    before = cache.state.codes if cache is not None and isinstance(cache.state, QTensor) else None
    after = torch.empty(batch, H, P, N, dtype=torch.int8, device=device)
    values = torch.empty(batch, length, E, device=device)
    squares = torch.empty(batch, length, H, device=device)
    chunk_scan_reference(layer.step, projected, conv, lengths, before, after, values, squares)
    if cache is not None:
        inputs = projected[..., layer.conv.first : layer.conv.first + channels]
        cache.conv = last_inputs(inputs, lengths, taps - 1, cache.conv)
        cache.state = QTensor(after, state_scale)
    joined = None if layer.gated is None else squares.flatten(0, 1)
    codes = rotate(
        layer.rotation, values.flatten(0, 1), joined, layer.out_proj.in_scale, how, groups=G, eps=layer.gated or 0.0
    )
    add(layer.out_proj, codes, residual, how)


__all__ = ["read"]
