"""Whole prompts of a quantized model by the fused kernels."""

import torch
from torch import Tensor

from quamba.decoding.mamba1 import Mamba1Layer
from quamba.decoding.runner import Plan
from quamba.kernels.launch import Launch
from quamba.nn.cache import Cache
from quamba.prompts import mamba1, mamba2


class PromptReader:
    """`MambaLM.hidden_states` over a plan.

    Args:
        plan: the model.
        how: to launch.
    """

    def __init__(self, plan: Plan, how: Launch) -> None:
        self._plan, self._how = plan, how

    @torch.no_grad()
    def hidden_states(self, input_ids: Tensor, lengths: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """The normalized residual stream after the last layer.

        Args:
            input_ids: int64 [Bt, L], rows right-padded with any token.
            lengths: real tokens of each row, int64 [Bt]; None: all.
            cache: go on from it, and bring it up to date.

        Returns:
            float32 [Bt, L, D]; arbitrary at and beyond a row's length.
        """
        plan, how = self._plan, self._how
        model = plan.model
        residual: Tensor = model.embedding(input_ids).contiguous()
        for index, (layer, scale) in enumerate(zip(plan.layers, plan.state_scales, strict=True)):
            layer_cache = None if cache is None else cache.layers[index]
            if isinstance(layer, Mamba1Layer):
                mamba1.read(layer, residual, lengths, layer_cache, scale, how)
            else:
                mamba2.read(layer, residual, lengths, layer_cache, scale, how)
        return model.norm_f(residual)  # type: ignore[no-any-return]  # modules give Any


__all__ = ["PromptReader"]
