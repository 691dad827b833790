"""The causal convolution with its SiLU: in float, and on 8-bit codes."""

import torch
from torch import Tensor, nn

from quamba.kernels.ops import causal_conv1d
from quamba.qtypes import QMAX, QMIN, Activation, QTensor, quantize_int8, scale_of, to_float


class CausalConv1d(nn.Module):
    """SiLU(conv(x)) in float32.

    Args:
        weight: float32 [C, K].
        bias: float32 [C] or None.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Activation, context: Tensor | None = None) -> Tensor:
        """[Bt, L, C] to [Bt, L, C]; `context` [Bt, K - 1, C] holds the inputs before."""
        return causal_conv1d(to_float(x), self.weight, self.bias, context, silu=True)


class QCausalConv1d(nn.Module):
    """v = s_w s_x sum q_w q_x + s_b q_b, then SiLU, then codes of `out_scale`.

    The weight has a scale per channel, the bias 8 bits with a scale of its own for each block of channels (x, B, C).

    Args:
        codes: int8 [C, K].
        weight_scale: float32 [C].
        bias: the bias' codes int8 [C] and their scale float32 [C], or None.
        out_scale: float32, a single value or [C].
    """

    codes: Tensor
    weight_scale: Tensor
    bias_codes: Tensor | None
    bias_scale: Tensor | None
    out_scale: Tensor

    def __init__(self, codes: Tensor, weight_scale: Tensor, bias: QTensor | None, out_scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("codes", codes)
        self.register_buffer("weight_scale", weight_scale)
        self.register_buffer("bias_codes", None if bias is None else bias.codes)
        self.register_buffer("bias_scale", None if bias is None else bias.scale)
        self.register_buffer("out_scale", out_scale)

    @classmethod
    def quantize(cls, conv: CausalConv1d, out_scale: Tensor, blocks: tuple[int, ...]) -> "QCausalConv1d":
        """The 8-bit form of a float convolution; `blocks` are the sizes of the blocks of channels, sum C."""
        weight_scale = scale_of(conv.weight.abs().amax(dim=1))
        codes = (conv.weight / weight_scale[:, None]).round_().clamp_(QMIN, QMAX).to(torch.int8)
        bias = None
        if conv.bias is not None:
            scales = [scale_of(part.abs().amax()).expand(len(part)) for part in torch.split(conv.bias, list(blocks))]
            bias = quantize_int8(conv.bias, torch.cat(scales))
        return cls(codes, weight_scale, bias, out_scale)

    def forward(self, x: Activation, context: Tensor | None = None) -> QTensor:
        """Codes [Bt, L, C] to codes; `context` holds codes (int8 [Bt, K - 1, C]) of the same scale."""
        if not isinstance(x, QTensor):
            raise TypeError("a quantized convolution takes codes")
        before = None if context is None else context.float()
        accumulated = causal_conv1d(x.codes.float(), self.codes.float(), None, before)
        v = accumulated.mul_(self.weight_scale * x.scale)
        if self.bias_codes is not None and self.bias_scale is not None:
            v.add_(self.bias_codes * self.bias_scale)
        return quantize_int8(nn.functional.silu(v, inplace=True), self.out_scale)


__all__ = ["CausalConv1d", "QCausalConv1d"]
