"""Small parameters of a mixer (A_log, D, dt_bias): in float, or as 8-bit codes with one scale."""

import torch
from torch import Tensor, nn

from quamba.qtypes import QTensor, quantize_int8, scale_of


class Parameter(nn.Module):
    """A float32 tensor; a module, so that its 8-bit form can take its place."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self) -> Tensor:
        """Its values."""
        return self.weight


class QParameter(nn.Module):
    """The 8-bit form: `scale * codes`, one scale for the whole tensor."""

    codes: Tensor
    scale: Tensor

    def __init__(self, codes: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)

    @classmethod
    def quantize(cls, parameter: Parameter) -> "QParameter":
        """Scaled by the largest absolute value."""
        q = quantize_int8(parameter.weight, scale_of(parameter.weight.abs().amax()))
        return cls(q.codes, q.scale)

    def forward(self) -> Tensor:
        """Its values, float32."""
        return QTensor(self.codes, self.scale).dequantize()


def values_of(parameter: nn.Module) -> Tensor:
    """The values of either form."""
    values = parameter()
    if not isinstance(values, torch.Tensor):
        raise TypeError(f"{type(parameter).__name__} holds no tensor")
    return values


__all__ = ["Parameter", "QParameter", "values_of"]
