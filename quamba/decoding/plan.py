"""What the fused kernels read of a quantized model, taken from its modules once; or that they cannot run it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quamba.nn.conv import QCausalConv1d
from quamba.nn.linear import QLinear
from quamba.transforms.hadamard import Hadamard, hadamard_matrix
from quamba.transforms.reorder import RestoreOrder


class NotFusedError(Exception):
    """The fused kernels do not run this model; says why."""


@dataclass(frozen=True, slots=True)
class Product:
    """A linear layer of 8-bit codes.

    Attributes:
        codes: int8 [N, K].
        scale: float32 [N], all scales in one.
        bias: float32 [N] in units of the output, or None.
        in_scale: float32, of the input's codes.
        out_scale: of the output's codes, float32 [N]; ones where it is float.
    """

    codes: Tensor
    scale: Tensor
    bias: Tensor | None
    in_scale: Tensor
    out_scale: Tensor


def product(part: nn.Module, name: str, *, coded: bool) -> Product:
    """Of a layer whose output is codes, or float.

    Raises:
        NotFusedError: it is no such layer.
    """
    if not isinstance(part, QLinear) or part.in_scale is None or part.weight_scale is None:
        raise NotFusedError(f"{name} does not multiply 8-bit codes")
    if part.shape[1] % 16:
        raise NotFusedError(f"{name} has rows of {part.shape[1]} codes, which are not whole 16 bytes")
    if (part.out_scale is None) == coded:
        raise NotFusedError(f"{name} gives {'floats' if coded else 'codes'}")
    scale, bias = part.in_scale * part.weight_scale, part.bias
    out_scale = torch.ones_like(scale)
    if part.out_scale is not None:
        out_scale = part.out_scale.expand_as(scale).contiguous()
        scale = scale / part.out_scale
        bias = None if bias is None else bias / part.out_scale
    return Product(part.operand().contiguous(), scale, bias, part.in_scale, out_scale)


@dataclass(frozen=True, slots=True)
class Convolved:
    """A convolution of codes: weights int8 [K, C]; what a product, the bias and an output code stand for, [C]."""

    weight: Tensor
    factor: Tensor
    bias: Tensor
    scale: Tensor


def convolved(part: nn.Module, in_scale: Tensor) -> Convolved:
    """Of a quantized convolution whose input has these scales, float32 [C] or one.

    Raises:
        NotFusedError: it is none.
    """
    if not isinstance(part, QCausalConv1d):
        raise NotFusedError("the convolution is not of 8-bit codes")
    channels = len(part.weight_scale)
    bias = torch.zeros_like(part.weight_scale)
    if part.bias_codes is not None and part.bias_scale is not None:
        bias = part.bias_codes * part.bias_scale
    return Convolved(
        part.codes.t().contiguous(),
        (part.weight_scale * in_scale).contiguous(),
        bias,
        part.out_scale.expand(channels).contiguous(),
    )


@dataclass(frozen=True, slots=True)
class Rotation:
    """A rotation as a factor across rows of channels, one inside them, and the order in which it finds both.

    Attributes:
        left: of +-1, float16 [R, R], or None without rotation.
        right: of +-1, int8 [P, P], or None without rotation.
        old_row: int32 [R].
        old_place: int16 [R P].
        norm: what makes them orthonormal.
    """

    left: Tensor | None
    right: Tensor | None
    old_row: Tensor
    old_place: Tensor
    norm: float


def rotation_of(rotation: nn.Module, size: int, inner: int, device: torch.device) -> Rotation:
    """The rotation of `size` channels, in rows of `inner`.

    Raises:
        NotFusedError: it has no such factors.
    """
    order = torch.arange(size, device=device)
    if isinstance(rotation, nn.Sequential) and isinstance(rotation[0], RestoreOrder):
        order = rotation[0].places.long().argsort()
        rotation = rotation[1]
    rows = (order // inner).view(-1, inner)
    if bool((rows != rows[:, :1]).any()):
        raise NotFusedError("channels have moved between heads")
    old_row, old_place = rows[:, 0].int().contiguous(), (order % inner).to(torch.int16)
    if isinstance(rotation, nn.Identity):
        return Rotation(None, None, old_row, old_place, 1.0)
    if not isinstance(rotation, Hadamard):
        raise NotFusedError(f"a {type(rotation).__name__} is no rotation that is known")
    factors = rotation.factors
    if factors.size != size or inner.bit_count() != 1 or inner > 1 << factors.doublings:
        raise NotFusedError(f"the rotation of {size} has no factor of {inner}")
    across = hadamard_matrix(factors.order // inner)
    left = torch.kron(torch.eye(factors.blocks, dtype=across.dtype), across)
    return Rotation(
        left.half().to(device),
        hadamard_matrix(inner).to(torch.int8).to(device),
        old_row,
        old_place,
        1 / math.sqrt(factors.order),
    )


def state_scale(mixer: nn.Module) -> Tensor:
    """Of a mixer's codes.

    Raises:
        NotFusedError: the state is not quantized.
    """
    scale = mixer.state_scale
    if not isinstance(scale, Tensor):
        raise NotFusedError("the state is not of 8-bit codes")
    return scale


def state_scales(mixer: nn.Module, channels: int, columns: int) -> tuple[Tensor, Tensor]:
    """The scale of a state as rows float32 [rows, N], and the row of each channel, int16 [channels].

    Raises:
        NotFusedError: the state is not quantized.
    """
    scale = state_scale(mixer)
    if scale.ndim == 0:
        return scale.expand(1, columns).contiguous(), torch.zeros(channels, dtype=torch.int16, device=scale.device)
    table, rows = mixer.state_scale_table, mixer.state_scale_rows
    if not isinstance(table, Tensor) or not isinstance(rows, Tensor):
        raise NotFusedError("the state's scales are not kept as rows")
    return table.contiguous(), rows.reshape(-1).contiguous()


__all__ = [
    "Convolved",
    "NotFusedError",
    "Product",
    "Rotation",
    "convolved",
    "product",
    "rotation_of",
    "state_scale",
    "state_scales",
]
