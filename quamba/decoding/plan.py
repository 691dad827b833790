"""What the fused kernels read of a quantized model, taken from its modules once; or that they cannot run it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quamba.kernels.convolution import Convolution
from quamba.kernels.packed4 import GROUP, Packed4, pack
from quamba.nn.conv import QCausalConv1d
from quamba.nn.linear import QLinear
from quamba.transforms.hadamard import Hadamard, hadamard_matrix
from quamba.transforms.reorder import RestoreOrder


class NotFusedError(Exception):
    """The fused kernels do not run this model; says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """A linear layer whose weight meets 8-bit codes as integers.

    Attributes:
        part: the layer.
        scale: float32 [N], all scales in one.
        bias: float32 [N] in units of the output, or None.
        in_scale: float32, of the input's codes.
        out_scale: of the output's codes, float32 [N]; ones where it is float.
        packed: 4-bit codes as a few rows read them, or None.
    """

    part: QLinear
    scale: Tensor
    bias: Tensor | None
    in_scale: Tensor
    out_scale: Tensor
    packed: Packed4 | None

    @property
    def shape(self) -> tuple[int, int]:
        """N and K."""
        return self.part.shape

    def codes(self) -> Tensor:
        """int8 [N, K]; of a 4-bit weight they are made at the first question."""
        return self.part.operand()

    def grouped(self) -> tuple[Tensor, Tensor] | None:
        """The canonical codes of a 4-bit weight and its groups' factors, of whole groups; None: integers are made."""
        part = self.part
        if part.has_operand or part.group_scale is None or part.scheme.group_size != GROUP or part.shape[1] % GROUP:
            return None
        return part.codes, part.group_scale


def product(part: nn.Module, name: str, *, coded: bool, whole: bool = True) -> Product:
    """Of a layer whose output is codes, or float.

    Args:
        part: the layer.
        name: what messages call it.
        coded: its output has to be codes.
        whole: its rows have to be whole 16 bytes.

    Raises:
        NotFusedError: it is no such layer.
    """
    if not isinstance(part, QLinear) or part.in_scale is None or part.weight_scale is None:
        raise NotFusedError(f"{name} does not multiply 8-bit codes")
    if whole and part.shape[1] % 16:
        raise NotFusedError(f"{name} has rows of {part.shape[1]} codes, which are not whole 16 bytes")
    if (part.out_scale is None) == coded:
        raise NotFusedError(f"{name} gives {'floats' if coded else 'codes'}")
    scale, bias = part.in_scale * part.weight_scale, part.bias
    out_scale = torch.ones_like(scale)
    if part.out_scale is not None:
        out_scale = part.out_scale.expand_as(scale).contiguous()
        scale = scale / part.out_scale
        bias = None if bias is None else bias / part.out_scale
    packed = None
    if part.group_scale is not None and part.scheme.group_size == GROUP:
        packed = pack(part.quantized_weight().codes, part.group_scale)
    return Product(part, scale, bias, part.in_scale, out_scale, packed)


def convolved(part: nn.Module, first: int, in_scale: Tensor) -> Convolution:
    """A quantized convolution of the codes from column `first` on, whose scales are these, float32 [C].

    Raises:
        NotFusedError: it is none.
    """
    if not isinstance(part, QCausalConv1d):
        raise NotFusedError("the convolution is not of 8-bit codes")
    bias = torch.zeros_like(part.weight_scale)
    if part.bias_codes is not None and part.bias_scale is not None:
        bias = part.bias_codes * part.bias_scale
    return Convolution(
        first,
        part.codes.t().contiguous(),
        (part.weight_scale * in_scale).contiguous(),
        bias,
        part.out_scale.expand(len(bias)).contiguous(),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Rotation:
    """A rotation of all channels as they lie in rows, and the order in which it finds them.

    Attributes:
        rows: R; channels are in R rows of P.
        factors: L^T and M, of +-1, float16 [R, R] and [P, P], or None without rotation.
        old_head: for each block of `inner` channels where it was before reordering, int32 [blocks].
        old_place: for each channel its place in its block then, int16 [R P].
        norm: what makes the factors orthonormal.
    """

    rows: int
    factors: tuple[Tensor, Tensor] | None
    old_head: Tensor
    old_place: Tensor
    norm: float


_MOST_ROWS = 512
_MOST_COLUMNS = 256


def rotation_of(rotation: nn.Module, size: int, inner: int, groups: int, device: torch.device) -> Rotation:
    """The rotation of `size` channels, moved in blocks of `inner`, of which size / `groups` share a norm's mean.

    Raises:
        NotFusedError: it has no such factors.
    """
    order = torch.arange(size, device=device)
    if isinstance(rotation, nn.Sequential) and isinstance(rotation[0], RestoreOrder):
        order = rotation[0].places.long().argsort()
        rotation = rotation[1]
    heads = (order // inner).view(-1, inner)
    if bool((heads != heads[:, :1]).any()):
        raise NotFusedError("channels have moved between heads")
    old_head, old_place = heads[:, 0].int().contiguous(), (order % inner).to(torch.int16)
    share = size // groups
    if isinstance(rotation, nn.Identity):
        columns = min(share & -share, 64)
        return Rotation(size // columns, None, old_head, old_place, 1.0)
    if not isinstance(rotation, Hadamard):
        raise NotFusedError(f"a {type(rotation).__name__} is no rotation that is known")
    factors = rotation.factors
    if factors.size != size:
        raise NotFusedError(f"a rotation of {factors.size} does not fit {size} channels")
    # Of the splits whose rows lie within a group the one with the smallest matrices.
    splits = [1 << k for k in range(factors.doublings + 1) if share % (1 << k) == 0 and 1 << k <= _MOST_COLUMNS]
    columns = min(splits, key=lambda width: _padded(size // width) + _padded(width))
    if size // columns > _MOST_ROWS:
        raise NotFusedError(f"the rotation of {size} has a factor of {size // columns}")
    across = hadamard_matrix(factors.order // columns)
    left = torch.kron(torch.eye(factors.blocks, dtype=across.dtype), across)
    return Rotation(
        size // columns,
        (left.t().contiguous().half().to(device), hadamard_matrix(columns).half().to(device)),
        old_head,
        old_place,
        1 / math.sqrt(factors.order),
    )


def _padded(size: int) -> int:
    return max(16, 1 << (size - 1).bit_length())


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
    "NotFusedError",
    "Product",
    "Rotation",
    "convolved",
    "product",
    "rotation_of",
    "state_scale",
    "state_scales",
]
