"""What the layers of both families do alike over whole prompts."""

import torch
from torch import Tensor

from quamba.decoding.plan import Product, Rotation
from quamba.decoding.products import multiply_many
from quamba.kernels.causal_conv1d import last_inputs
from quamba.kernels.convolution import Convolution
from quamba.kernels.gated_rotation import Gate, rotate_reference
from quamba.kernels.launch import Launch
from quamba.kernels.rotation_factors import Factors
from quamba.kernels.triton_conv_prompt import conv_prompt
from quamba.kernels.triton_gemv import ADD, CODES
from quamba.kernels.triton_norm import norm
from quamba.kernels.triton_rotate import rotate as fused_rotate
from quamba.nn.cache import LayerCache
from quamba.qtypes import QTensor


def factors_of(rotation: Rotation, size: int, groups: int = 1) -> Factors | None:
    """A rotation of `size` channels as its kernel takes it, in groups that share a norm's mean; None: it does not."""
    return Factors.of(rotation.factors, rotation.rows, size // rotation.rows, groups=groups)


def multiply(p: Product, x: Tensor, out: Tensor, kind: int, how: Launch) -> None:
    """A product of many rows.

    Args:
        p: the layer.
        x: int8 [M, K].
        out: int8 or float32 [M, N].
        kind: what becomes of the product, as in `quamba.kernels.triton_gemv`.
        how: to launch.
    """
    multiply_many(p, x, out, kind, how)


def project(before: tuple[Tensor, float], p: Product, residual: Tensor, how: Launch) -> Tensor:
    """The norm (its weight and eps) and the projection behind it: float32 [Bt, L, D] to codes int8 [Bt, L, N]."""
    rows = residual.flatten(0, 1)
    codes = torch.empty_like(rows, dtype=torch.int8)
    norm(rows, before[0], p.in_scale, codes, eps=before[1], warps=16, pdl=how.pdl)
    out = torch.empty(len(rows), p.shape[0], dtype=torch.int8, device=rows.device)
    multiply(p, codes, out, CODES, how)
    return out.view(*residual.shape[:2], -1)


def convolve(projected: Tensor, conv: Convolution, cache: LayerCache | None, how: Launch) -> Tensor:
    """The convolution of some columns of codes int8 [Bt, L, W], behind what a cache has of them: int8 [Bt, L, C]."""
    out = torch.empty(*projected.shape[:2], conv.weight.shape[1], dtype=torch.int8, device=projected.device)
    conv_prompt(projected, conv, None if cache is None else cache.conv, out, device=how.device, pdl=how.pdl)
    return out


def state_before(cache: LayerCache | None) -> Tensor | None:
    """The codes of the state that prompts go on from; None: of zeros."""
    return cache.state.codes if cache is not None and isinstance(cache.state, QTensor) else None


def remember(
    cache: LayerCache | None,
    projected: Tensor,
    conv: Convolution,
    lengths: Tensor | None,
    state: Tensor,
    scale: Tensor | None,
) -> None:
    """Bring a cache up to date.

    Args:
        cache: None: nothing is remembered.
        projected: codes int8 [Bt, L, W].
        conv: of some of their columns, of which the last tokens are kept.
        lengths: real tokens of each row, int64 [Bt]; None: all.
        state: codes behind the last real token.
        scale: of these codes, as a cache has it; None: nothing is remembered.
    """
    if cache is not None and scale is not None:
        taps, channels = conv.weight.shape
        inputs = projected[..., conv.first : conv.first + channels]
        cache.conv = last_inputs(inputs, lengths, taps - 1, cache.conv)
        cache.state = QTensor(state, scale)


def rotate(
    rotation: Rotation,
    factors: Factors | None,
    values: Tensor,
    scale: Tensor,
    how: Launch,
    *,
    projected: Tensor | None = None,
    gate: Gate | None = None,
) -> Tensor:
    """Gate, norm, rotation and codes, int8 [M, E].

    Args:
        rotation: of E channels.
        factors: it as the kernel takes it; None: plain PyTorch rotates.
        values: float32 or float16 [M, E].
        scale: of the codes, float32.
        how: to launch.
        projected: codes z in the first E columns, int8 [M, W]; None without a gate.
        gate: of values by z, and its norm; None: values are as they are.
    """
    codes = torch.empty_like(values, dtype=torch.int8)
    if factors is not None:
        fused_rotate(values, projected, gate, factors, scale, codes, device=how.device, pdl=how.pdl)
    else:
        rotate_reference(values, projected, gate, rotation.factors, scale, codes, rows=rotation.rows)
    return codes


def add(p: Product, codes: Tensor, residual: Tensor, how: Launch) -> None:
    """The projection of codes int8 [M, K] is added to float32 [Bt, L, D]."""
    multiply(p, codes, residual.flatten(0, 1), ADD, how)


__all__ = ["add", "convolve", "factors_of", "multiply", "project", "remember", "rotate", "state_before"]
