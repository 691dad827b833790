"""The causal convolution of codes behind a product, a token at a time: what kernels read of it, and its definition."""

from dataclasses import dataclass

import torch
from torch import Tensor

from quamba.qtypes import QMAX, QMIN


@dataclass(frozen=True, slots=True, eq=False)
class Convolution:
    """u = q8(SiLU(conv(codes)); s) in the place of some of a product's codes.

    Attributes:
        first: the first of the C columns that it takes.
        weight: int8 [K, C].
        factor: what a product of codes stands for, float32 [C].
        bias: float32 [C].
        scale: s, float32 [C].
    """

    first: int
    weight: Tensor
    factor: Tensor
    bias: Tensor
    scale: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """Its memory.

    Attributes:
        ring: codes int8 [Bt, K, C]; the token at time t lies in slot t mod K.
        position: int32 [1], the new token's time, at least K - 1.
    """

    ring: Tensor
    position: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Following:
    """A product of all codes behind the convolution, to which each program adds what its channels give.

    Channels are whole fours, also those before the first that is convolved.

    Attributes:
        weight: four int8 in each int32, [C / 4, J]: the transpose of [J, C] seen as int32.
        sums: int32 [Bt, J], zeros before.
    """

    weight: Tensor
    sums: Tensor


def read_behind(conv: tuple[Convolution, Past] | None, following: Following | None, filler: Tensor) -> list[Tensor]:
    """What kernels of a product read of what comes behind it, in their order; `filler` for what does not."""
    behind = [filler] * 6
    if conv is not None:
        c, past = conv
        behind = [past.ring, past.position, c.weight, c.factor, c.bias, c.scale]
    return behind + ([filler] * 2 if following is None else [following.weight, following.sums])


def sizes_behind(conv: tuple[Convolution, Past] | None, following: Following | None) -> dict[str, int]:
    """The constants that such kernels are compiled with for it; 0 for what there is not."""
    taps, channels = (0, 0) if conv is None else conv[0].weight.shape
    columns = 0 if following is None else following.weight.shape[1]
    return {
        "TAPS": taps,
        "FIRST": 0 if conv is None else conv[0].first,
        "CHANNELS": channels,
        "NEXT": columns,
        "NEXT_BLOCK": 1 << (columns - 1).bit_length() if columns else 0,
    }


def convolve_reference(codes: Tensor, conv: Convolution, past: Past) -> None:
    """The definition, in plain PyTorch: codes int8 [Bt, N] change in place, the ring keeps what they were."""
    time, (K, C) = int(past.position), conv.weight.shape
    columns = slice(conv.first, conv.first + C)
    past.ring[:, time % K] = codes[:, columns]
    order = [(time + 1 + tap) % K for tap in range(K)]
    v = (past.ring[:, order].float() * conv.weight.float()).sum(1) * conv.factor + conv.bias
    codes[:, columns] = (torch.nn.functional.silu(v) / conv.scale).round().clamp(QMIN, QMAX).to(torch.int8)


__all__ = ["Convolution", "Following", "Past", "convolve_reference", "read_behind", "sizes_behind"]
