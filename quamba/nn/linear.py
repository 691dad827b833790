"""Linear layers: in float, and with integer weights and activations."""

import torch
from torch import Tensor, nn

from quamba.kernels.int_matmul import int8_matmul
from quamba.qtypes import QMAX, QMIN, Activation, QTensor, quantize_int8, scale_of, to_float


class Linear(nn.Module):
    """y = x W^T + b in float32.

    Args:
        weight: float32 [out, in].
        bias: float32 [out] or None.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Activation) -> Tensor:
        """[..., in] to [..., out]."""
        return nn.functional.linear(to_float(x), self.weight, self.bias)


class QLinear(nn.Module):
    """A linear layer on 8-bit codes with 32-bit accumulation.

    y = (sum_k q_w q_x) s_x s_w + b, each output channel with its own s_w; rounded to codes of `out_scale` where the
    consumer takes codes.

    Args:
        codes: int8 [out, in].
        weight_scale: float32 [out].
        in_scale: float32, of a float input that is quantized on entry.
        out_scale: float32, a single value or [out]; None: the output stays float32.
        bias: float32 [out] or None.
    """

    codes: Tensor
    weight_scale: Tensor
    in_scale: Tensor
    out_scale: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        codes: Tensor,
        weight_scale: Tensor,
        in_scale: Tensor,
        out_scale: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("codes", codes)
        self.register_buffer("weight_scale", weight_scale)
        self.register_buffer("in_scale", in_scale)
        self.register_buffer("out_scale", out_scale)
        self.register_buffer("bias", bias)

    @classmethod
    def quantize(cls, linear: Linear, in_scale: Tensor, out_scale: Tensor | None = None) -> "QLinear":
        """The 8-bit form of a float layer, each output channel scaled by its largest absolute weight."""
        weight_scale = scale_of(linear.weight.abs().amax(dim=1))
        codes = (linear.weight / weight_scale[:, None]).round_().clamp_(QMIN, QMAX).to(torch.int8)
        return cls(codes, weight_scale, in_scale, out_scale, linear.bias)

    def forward(self, x: Activation) -> Activation:
        """[..., in] to [..., out]; a float input is quantized with `in_scale` first."""
        q = x if isinstance(x, QTensor) else quantize_int8(x, self.in_scale)
        codes = q.codes.reshape(-1, self.codes.shape[1])
        accumulated = int8_matmul(codes, self.codes).view(*q.shape[:-1], -1)
        scale = q.scale * self.weight_scale
        if self.out_scale is None:
            y = accumulated * scale
            return y if self.bias is None else y.add_(self.bias)
        y = accumulated * (scale / self.out_scale)
        if self.bias is not None:
            y.add_(self.bias / self.out_scale)
        return QTensor(y.round_().clamp_(QMIN, QMAX).to(torch.int8), self.out_scale)


__all__ = ["Linear", "QLinear"]
