"""How the fused kernels of a step are launched on a device."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

# Rows, warps and the most registers of a thread (None: the compiler decides) of a program.
Shape = tuple[int, int, int | None]

# From so many rows of a batch on there are programs enough whatever each does.
_MANY_ROWS = 8


@dataclass(frozen=True, slots=True)
class Launch:
    """Choices that change the time and never the result.

    Attributes:
        device: use the device's integer dot product; false under the interpreter.
        pdl: overlap launches.
        few: up to so many rows of a batch each read a weight for themselves, without tensor cores.
        norm_rows: for them the norm before a product of up to so many rows is done in the product's launch, by every
            program of it; before others in one of its own.
        step_elements: of a state that a program updates at once, about.
        step_warps: warps of its program where rows are few; where programs are many anyway, it has one.
        select_channels: channels of Mamba-1 that a program updates.
        join_warps: warps of a program across heads.
        chained: for few rows x_proj's sums are made behind the convolution, in in_proj's launch.
        shapes: rows, warps and registers of a program by the shape [N, K] of a product.
        other: those of all other products; None: `default_shape` chooses.
        tile: of products of many rows, with warps and stages; None: what `gemm` chooses.
        workspace: where programs may leave parts of sums (`quamba.kernels.hopper`), of one chain of launches.
    """

    device: bool = True
    pdl: bool = False
    few: int = 1
    norm_rows: int = 20000
    step_elements: int = 2048
    step_warps: int = 4
    select_channels: int = 16
    join_warps: int = 8
    chained: bool = False
    shapes: dict[tuple[int, int], Shape] = field(default_factory=dict)
    other: Shape | None = None
    tile: tuple[tuple[int, int, int], int, int] | None = None
    workspace: Tensor | None = None

    def gemv(self, rows: int, inner: int, *, bits: int = 8) -> dict[str, Any]:
        """Arguments of `gemv` for a weight [rows, inner] of so many bits."""
        default = default_shape4(rows, inner) if bits == 4 else default_shape(rows, inner)
        block, warps, registers = self.shapes.get((rows, inner), self.other or default)
        return {"block": block, "warps": warps, "registers": registers, "device": self.device, "pdl": self.pdl}

    def parts(self, channels: int, states: int) -> int:
        """In how many parts a head's state [channels, states] is updated: a power of two."""
        return max(1, min(channels // 4, channels * states // self.step_elements))

    def state_warps(self, batch: int) -> int:
        """Warps of the program of such a part."""
        return self.step_warps if batch < _MANY_ROWS else 1

    def join_rows(self, batch: int) -> int:
        """Rows of a matrix of channels that a program of `join` gives."""
        return 16 if batch < _MANY_ROWS else 128

    def gemm(self) -> dict[str, Any]:
        """Arguments of `gemm`."""
        if self.tile is None:
            return {"pdl": self.pdl, "workspace": self.workspace}
        tile, warps, stages = self.tile
        return {"tile": tile, "warps": warps, "stages": stages, "pdl": self.pdl}


def default_shape(rows: int, inner: int) -> Shape:
    """Of a program for a weight of 8 bits [rows, inner].

    At most 80 kB of weights in its registers; two programs for each of some 132 multiprocessors where they read more
    than 40 kB, and work for most multiprocessors in any case (measured on an H100).
    """
    block = 32
    while block > 4 and (block * inner > 81920 or rows < 96 * block or (block * inner > 40960 and rows < 264 * block)):
        block //= 2
    warps = 4 if block * inner < 8192 or (inner > 4096 and block > 4) else 8
    # Of eight warps two programs fit a multiprocessor so.
    return block, warps, 128 if warps == 8 else None


def default_shape4(rows: int, inner: int) -> Shape:
    """Of a program for a weight of 4 bits [rows, inner].

    Few warps, each with much to do between two barriers: at most 20 kB of weights, and some four programs for each of
    132 multiprocessors (measured on an H100).
    """
    block = 32
    while block > 4 and (block * inner > 40960 or rows < 512 * block):
        block //= 2
    return block, 4, None


__all__ = ["Launch", "Shape", "default_shape", "default_shape4"]
