"""Products of a step whose activations stay floats (W4A16): by the kernel for the number of rows."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quamba.decoding.plan import NotFusedError
from quamba.kernels.launch import Launch
from quamba.kernels.triton_gemm4 import turned
from quamba.kernels.triton_gemm4_half import gemm4_half
from quamba.kernels.triton_gemv4_half import GROUP, gemv4_half
from quamba.kernels.triton_halves import Halves, halves
from quamba.kernels.triton_split import Split, split
from quamba.nn.conv import CausalConv1d
from quamba.nn.linear import QLinear
from quamba.nn.mamba1 import Mamba1Mixer
from quamba.nn.mamba2 import Mamba2Mixer


@dataclass(frozen=True, slots=True, eq=False)
class HalfProduct:
    """A linear layer of 4-bit codes that floats meet.

    Attributes:
        codes: uint8 [N, K / 2].
        group_scale: float16 [N, K / 128].
        turned: the same as many rows read them, float32 [K / 128, N].
        bias: float32 [N], or None.
    """

    codes: Tensor
    group_scale: Tensor
    turned: Tensor
    bias: Tensor | None

    @property
    def shape(self) -> tuple[int, int]:
        """N and K."""
        return len(self.codes), 2 * self.codes.shape[1]


def float_convolution(mixer: Mamba1Mixer | Mamba2Mixer) -> tuple[Tensor, Tensor]:
    """A mixer's convolution of floats: weight float32 [taps, C] and bias float32 [C].

    Raises:
        NotFusedError: it has none, or its state is of codes.
    """
    conv = mixer.conv1d
    if not isinstance(conv, CausalConv1d) or mixer.state_scale is not None:
        raise NotFusedError("a convolution or a state of codes meets floats")
    weight = conv.weight.t().contiguous()
    return weight, torch.zeros(weight.shape[1], device=weight.device) if conv.bias is None else conv.bias


def half_product(part: nn.Module, name: str) -> HalfProduct:
    """Of a layer.

    Args:
        part: the layer.
        name: what messages call it.

    Raises:
        NotFusedError: it is no such layer.
    """
    if not isinstance(part, QLinear) or part.in_scale is not None or part.group_scale is None:
        raise NotFusedError(f"{name} multiplies no floats with 4-bit codes")
    if part.shape[1] % GROUP or part.scheme.group_size != GROUP:
        raise NotFusedError(f"{name} has rows of {part.shape[1]} codes, which are no whole groups of {GROUP}")
    return HalfProduct(part.codes, part.group_scale, turned(part.group_scale), part.bias)


@dataclass(frozen=True, slots=True, eq=False)
class Room:
    """What rows become before a product: one row bytes, more rows float16."""

    bytes: Split | None
    halves: Halves | None

    @classmethod
    def of(cls, rows: int, columns: int, how: Launch, device: torch.device) -> "Room":
        """Room for rows."""
        if rows <= how.few:
            return cls(Split.empty(rows, columns, device), None)
        return cls(None, Halves.empty(rows, columns, device))


def multiply_half(
    p: HalfProduct,
    x: Tensor,
    room: Room,
    out: Tensor,
    kind: int,
    how: Launch,
    norm: tuple[Tensor, float] | None = None,
) -> None:
    """Two launches: rows become what their product takes, then the product.

    Args:
        p: the layer.
        x: float32 [Bt, K].
        room: for them.
        out: float32 [Bt, N].
        kind: `FLOAT` or `ADD`, as in `quamba.kernels.triton_gemv`.
        how: to launch.
        norm: the weight and eps of the norm before.
    """
    if room.bytes is not None:
        split(x, room.bytes, norm=norm, pdl=how.pdl)
    elif room.halves is not None:
        halves(x, room.halves, norm=norm, pdl=how.pdl)
    multiply_room(p, room, out, kind, how)


def multiply_room(p: HalfProduct, room: Room, out: Tensor, kind: int, how: Launch, *, block: int = 16) -> None:
    """The product alone, of rows that have become what it takes; `block` rows of the weight a program of one row."""
    if room.bytes is not None:
        weight = p.codes, p.group_scale, p.bias
        gemv4_half(room.bytes, *weight, out, kind=kind, block=block, device=how.device, pdl=how.pdl)
    elif room.halves is not None:
        gemm4_half(room.halves, p.codes, p.turned, p.bias, out, kind=kind, device=how.device, pdl=how.pdl)


__all__ = ["HalfProduct", "Room", "float_convolution", "half_product", "multiply_half", "multiply_room"]
