"""The causal convolution of a prompt's codes with its SiLU, to codes.

u_t = q8(SiLU(f (sum_k w_k q_{t - K + 1 + k}) + b); s)
"""

import torch
from torch import Tensor

from quamba.kernels.convolution import Convolution
from quamba.qtypes import QMAX, QMIN


def conv_prompt_reference(codes: Tensor, conv: Convolution, context: Tensor | None, out: Tensor) -> None:
    """The definition, in plain PyTorch.

    Args:
        codes: int8 [Bt, L, W], of which it reads C columns.
        conv: what it computes.
        context: int8 [Bt, K - 1, C], the codes before the first token; None for zeros.
        out: int8 [Bt, L, C].
    """
    (K, C), (batch, length, _) = conv.weight.shape, codes.shape
    x = codes[..., conv.first : conv.first + C].float()
    before = x.new_zeros(batch, K - 1, C) if context is None else context.float()
    whole = torch.cat([before, x], dim=1)
    acc = sum(whole[:, tap : tap + length] * conv.weight[tap].float() for tap in range(K))
    v = torch.nn.functional.silu(acc * conv.factor + conv.bias)
    out.copy_((v / conv.scale).round().clamp(QMIN, QMAX))


__all__ = ["conv_prompt_reference"]
