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
        shapes: rows and warps of a program by the shape [N, K] of a product; others have the default.
    """

    device: bool = True
    pdl: bool = False
    step_warps: int = 4
    shapes: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)

    def gemv(self, rows: int, inner: int) -> dict[str, Any]:
        """Arguments of `gemv` for a weight [rows, inner]."""
        block, warps = self.shapes.get((rows, inner), default_shape(rows, inner))
        return {"block": block, "warps": warps, "device": self.device, "pdl": self.pdl}


def default_shape(rows: int, inner: int) -> tuple[int, int]:
    """Rows and warps of a program: some 40 kB of weights each, and enough programs for every multiprocessor."""
    block = 32
    while block > 4 and (block * inner > 40960 or rows < 264 * block):
        block //= 2
    return block, 8 if block * inner > 16384 else 4


__all__ = ["Launch", "default_shape"]
