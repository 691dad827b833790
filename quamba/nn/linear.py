"""Linear layers: in float, and with quantized weights of any scheme."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from quamba.granularity import SCHEMES, WeightScheme
from quamba.kernels.four_bits import linear_of_codes
from quamba.kernels.int_matmul import int8_matmul
from quamba.nn.state import Kept, register
from quamba.packing import pack_int4, unpack_int4
from quamba.primitives import QuantizedWeight, quantize_weight
from quamba.qtypes import QMAX, QMIN, Activation, QTensor, quantize_int8, to_float


class Linear(nn.Module):
    """y = x W^T + b in float32; the product alone in the weight's type where that is half precision.

    Args:
        weight: float32, bfloat16 or float16 [out, in].
        bias: float32 [out] or None.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Activation) -> Tensor:
        """[..., in] to float32 [..., out]."""
        if self.weight.dtype == torch.float32:
            return nn.functional.linear(to_float(x), self.weight, self.bias)
        y = nn.functional.linear(to_float(x).to(self.weight.dtype), self.weight).float()
        return y if self.bias is None else y.add_(self.bias)


class QLinear(nn.Module):
    """A linear layer with a quantized weight.

    8-bit activations: y = (sum_k q_w q_x) s_x s_w + b with 32-bit integer sums, each output channel with its own s_w;
    rounded to codes of `out_scale` where the consumer takes codes. q_w is the 8-bit code, or the integer that a 4-bit
    code and its group's factor make (see `quamba.grids`). Float activations: y = x (q s_g)^T + b in float32, or as
    `quamba.kernels.four_bits` has it on CUDA devices.

    The buffers are the canonical form, the one of saved files. What products run on is made of them at first use.

    Args:
        scheme: what the tensors mean.
        shape: out and in.
        tensors: by name, as `state_dict()` has them:
            codes: int8 [out, in]; 4 bits: uint8 [out, ceil(in / 2)] (`quamba.packing`).
            weight_scale: s_w or s_ch, float32 [out]; none for float activations.
            group_scale: s_g or s_g / s_ch, float16 [out, groups]; none for 8 bits.
            in_scale: float32, of a float input that is quantized on entry; none for float activations.
            out_scale: float32, a single value or [out]; none: the output stays float32.
            bias: float32 [out], or none.

    Raises:
        ModelError: the tensors are not those of the scheme and the shape.
    """

    codes: Tensor
    weight_scale: Tensor | None
    group_scale: Tensor | None
    in_scale: Tensor | None
    out_scale: Tensor | None
    bias: Tensor | None

    def __init__(self, scheme: WeightScheme, shape: tuple[int, int], tensors: Mapping[str, Tensor | None]) -> None:
        super().__init__()
        self.scheme, self.shape = scheme, shape
        for name in ("codes", "weight_scale", "group_scale", "in_scale", "out_scale", "bias"):
            self.register_buffer(name, None)
        register(self, f"a {scheme.name} layer {list(shape)}", tensors, _kept(scheme, shape))
        self._operand: Tensor | None = None

    @classmethod
    def of(
        cls,
        weight: QuantizedWeight,
        in_scale: Tensor | None,
        out_scale: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> "QLinear":
        """The layer of a quantized weight, whether rounded or by GPTQ."""
        tensors = {
            "codes": weight.codes if weight.scheme.num_bits == 8 else pack_int4(weight.codes),
            "weight_scale": weight.weight_scale,
            "group_scale": weight.group_scale,
            "in_scale": in_scale,
            "out_scale": out_scale,
            "bias": bias,
        }
        return cls(weight.scheme, (weight.codes.shape[0], weight.codes.shape[1]), tensors)

    @classmethod
    def quantize(
        cls,
        linear: Linear,
        in_scale: Tensor | None,
        out_scale: Tensor | None = None,
        *,
        scheme: WeightScheme = SCHEMES["W8A8"],
        blocks: Sequence[int] | None = None,
    ) -> "QLinear":
        """The quantized form of a float layer by rounding to nearest; `blocks` as `quantize_weight` takes them."""
        return cls.of(quantize_weight(linear.weight, scheme, blocks=blocks), in_scale, out_scale, linear.bias)

    def quantized_weight(self) -> QuantizedWeight:
        """Its weight, unpacked."""
        codes = self.codes if self.scheme.num_bits == 8 else unpack_int4(self.codes, self.shape[1])
        return QuantizedWeight(self.scheme, codes, self.weight_scale, self.group_scale)

    @property
    def has_operand(self) -> bool:
        """Whether what inputs are multiplied with has been made: of 8 bits it is what the buffers are."""
        return self._operand is not None or self.scheme.num_bits == 8

    def operand(self) -> Tensor:
        """What inputs are multiplied with, int8 or float32 [out, in]; made once, on the device of the buffers."""
        if self._operand is None:
            self._operand = self.quantized_weight().operand()
        return self._operand

    def forward(self, x: Activation) -> Activation:
        """[..., in] to [..., out]; a float input is quantized with `in_scale` first where products are of integers."""
        if self.in_scale is None or self.weight_scale is None:
            return self._of_floats(to_float(x))
        q = x if isinstance(x, QTensor) else quantize_int8(x, self.in_scale)
        if q.scale.numel() != 1:
            raise ValueError(
                f"the input of a linear layer has one scale, not {q.scale.numel()}: the sum runs over its channels"
            )
        accumulated = int8_matmul(q.codes.reshape(-1, self.shape[1]), self.operand()).view(*q.shape[:-1], -1)
        scale = q.scale * self.weight_scale
        if self.out_scale is None:
            y = accumulated * scale
            return y if self.bias is None else y.add_(self.bias)
        y = accumulated * (scale / self.out_scale)
        if self.bias is not None:
            y.add_(self.bias / self.out_scale)
        return QTensor(y.round_().clamp_(QMIN, QMAX).to(torch.int8), self.out_scale)

    def _of_floats(self, x: Tensor) -> Tensor:
        if self.group_scale is not None and self.scheme.num_bits == 4:
            y = linear_of_codes(x, self.codes, self.group_scale, self.bias)
            if y is not None:
                return y
        return nn.functional.linear(x, self.operand(), self.bias)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Buffers move to another device: the operand is made there anew.
        self._operand = None
        module: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch gives it no types
        return module

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._operand = None
        super()._load_from_state_dict(*args, **kwargs)


def _kept(scheme: WeightScheme, shape: tuple[int, int]) -> dict[str, Kept]:
    rows, columns = shape
    kept = {"bias": Kept(torch.float32, ((rows,),), optional=True)}
    if scheme.num_bits == 8:
        kept["codes"] = Kept(torch.int8, ((rows, columns),))
    else:
        kept["codes"] = Kept(torch.uint8, ((rows, -(-columns // 2)),))
        kept["group_scale"] = Kept(torch.float16, ((rows, -(-columns // (scheme.group_size or columns))),))
    if scheme.activation_bits == 8:
        kept["weight_scale"] = Kept(torch.float32, ((rows,),))
        kept["in_scale"] = Kept(torch.float32, ((),))
        kept["out_scale"] = Kept(torch.float32, ((), (rows,)), optional=True)
    return kept


__all__ = ["Linear", "QLinear"]
