"""How the fused kernels of a step are launched on a device."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Launch:
    """Choices that change the time and never the result.

    Attributes:
        device: use the device's integer dot product; false under the interpreter.
        pdl: overlap launches.
        step_warps: warps of a head's program.
        join_warps: warps of a program across heads.
        shapes: rows and warps of a program by the shape [N, K] of a product.
        other: those of all other products; None: `default_shape` chooses.
    """

    device: bool = True
    pdl: bool = False
    step_warps: int = 4
    join_warps: int = 8
    shapes: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    other: tuple[int, int] | None = None

    def gemv(self, rows: int, inner: int) -> dict[str, Any]:
        """Arguments of `gemv` for a weight [rows, inner]."""
        block, warps = self.shapes.get((rows, inner), self.other or default_shape(rows, inner))
        return {"block": block, "warps": warps, "device": self.device, "pdl": self.pdl}


def default_shape(rows: int, inner: int) -> tuple[int, int]:
    """Rows and warps of a program.

    At most 80 kB of weights in its registers; two programs for each of some 132 multiprocessors where they read more
    than 40 kB, and work for most multiprocessors in any case (measured on an H100).
    """
    block = 32
    while block > 4 and (block * inner > 81920 or rows < 96 * block or (block * inner > 40960 and rows < 264 * block)):
        block //= 2
    return block, 8 if block * inner >= 8192 else 4


__all__ = ["Launch", "default_shape"]
