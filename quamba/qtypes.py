"""Quantized values: integer codes with the scale that gives them their meaning.

Everywhere in this library quantization is symmetric with zero point 0: `q8(x; s) = clamp(round(x / s), -128, 127)`,
rounded half to even and saturating; dequantization is `s * q`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

QMIN, QMAX = -128, 127
# Below this a scale would turn noise into codes (and 0 into a division by zero).
MIN_SCALE = 1e-6


@dataclass(frozen=True, slots=True)
class QTensor:
    """`scale * codes`.

    Attributes:
        codes: int8 [...].
        scale: float32, a single value or one for each entry of the last axis.
    """

    codes: Tensor
    scale: Tensor

    @property
    def shape(self) -> torch.Size:
        """The shape of the codes."""
        return self.codes.shape

    def dequantize(self) -> Tensor:
        """float32 [...]."""
        return self.codes * self.scale

    def narrow(self, start: int, length: int) -> "QTensor":
        """Entries start..start+length of the last axis."""
        scale = self.scale if self.scale.ndim == 0 else self.scale.narrow(-1, start, length)
        return QTensor(self.codes.narrow(-1, start, length), scale)


Activation = Tensor | QTensor


def quantize_int8(x: Tensor, scale: Tensor) -> QTensor:
    """Round `x` [...] to int8 codes; `scale` is a single value or one for each entry of the last axis."""
    codes = (x / scale).round_().clamp_(QMIN, QMAX).to(torch.int8)
    return QTensor(codes, scale)


def to_float(x: Activation) -> Tensor:
    """The values of an activation, whatever its kind."""
    return x.dequantize() if isinstance(x, QTensor) else x


def narrow(x: Activation, start: int, length: int) -> Activation:
    """Entries start..start+length of the last axis, as a view."""
    return x.narrow(start, length) if isinstance(x, QTensor) else x.narrow(-1, start, length)


def scale_of(absmax: Tensor | float) -> Tensor:
    """The scale that puts `absmax` on code 127, float32, at least 1e-6."""
    return (torch.as_tensor(absmax, dtype=torch.float32) / QMAX).clamp(min=MIN_SCALE)


__all__ = ["MIN_SCALE", "QMAX", "QMIN", "Activation", "QTensor", "narrow", "quantize_int8", "scale_of", "to_float"]
