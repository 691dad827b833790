"""Whole prompts of a quantized model by the fused kernels."""

import torch
from torch import Tensor

from quamba.decoding.mamba1 import Mamba1Layer
from quamba.decoding.runner import FusedLayer, Plan
from quamba.kernels.launch import Launch
from quamba.nn.cache import Cache
from quamba.prompts.mamba1 import Mamba1Prompt
from quamba.prompts.mamba2 import Mamba2Prompt


class PromptReader:
    """`MambaLM.hidden_states` over a plan.

    Args:
        plan: the model.
        how: to launch.

    Raises:
        NotFusedError: the kernels do not run it.
    """

    def __init__(self, plan: Plan, how: Launch) -> None:
        self._plan, self._how = plan, how
        self._layers = [_of(layer) for layer in plan.layers]

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
        for index, (layer, scale) in enumerate(zip(self._layers, plan.state_scales, strict=True)):
            layer.read(residual, lengths, None if cache is None else cache.layers[index], scale, how)
        return model.norm_f(residual)  # type: ignore[no-any-return]  # modules give Any


def _of(layer: FusedLayer) -> Mamba1Prompt | Mamba2Prompt:
    return Mamba1Prompt.of(layer) if isinstance(layer, Mamba1Layer) else Mamba2Prompt.of(layer)


__all__ = ["PromptReader"]
