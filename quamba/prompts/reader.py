"""Whole prompts of a quantized model by the fused kernels; of a hybrid's layers of floats by the layers themselves."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quamba.decoding.mamba1 import Mamba1Layer
from quamba.decoding.mamba2 import Mamba2Layer
from quamba.decoding.plan import NotFusedError
from quamba.decoding.runner import FloatLayer, FusedLayer, Plan
from quamba.kernels.launch import Launch
from quamba.nn.cache import Cache, LayerCache
from quamba.nn.model import Layer
from quamba.prompts.mamba1 import Mamba1Prompt
from quamba.prompts.mamba2 import Mamba2Prompt

# Places within a row are counted in 31 bits; so are tokens, times their heads.
_MOST_ELEMENTS = 1 << 31
_MOST_TOKENS = 1 << 24


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
        device = plan.model.device
        # -1 is no device: nothing changes.
        self._device = device if device.type == "cuda" else -1
        self._layers = [_of(*pair) for pair in zip(plan.layers, plan.model.layers, strict=True)]
        if plan.of_floats:
            raise NotFusedError("its activations are floats")

    def takes(self, batch: int, length: int) -> bool:
        """Whether the kernels can count the places in so many prompts of this length."""
        config = self._plan.model.config
        # More than in_proj gives for a token.
        widest = 3 * config.d_inner + 2 * config.ngroups * config.d_state
        return length * widest < _MOST_ELEMENTS and batch * length < _MOST_TOKENS

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
        # Launches go to the current device, whatever tensors they have.
        with torch.cuda.device(self._device):
            residual: Tensor = model.embedding(input_ids).contiguous()
            for index, (layer, scale) in enumerate(zip(self._layers, plan.state_scales, strict=True)):
                layer.read(residual, lengths, None if cache is None else cache.layers[index], scale, how)
            hidden: Tensor = model.norm_f(residual)
        return hidden


@dataclass(frozen=True, slots=True, eq=False)
class OwnLayer:
    """A layer of a hybrid whose activations are floats: its modules read prompts."""

    layer: Layer

    def read(
        self,
        residual: Tensor,
        lengths: Tensor | None,
        cache: LayerCache | None,
        state_scale: Tensor | None,  # noqa: ARG002  # as other layers have it
        how: Launch,  # noqa: ARG002  # as other layers have it
    ) -> None:
        """As `quamba.prompts.mamba2.Mamba2Prompt.read`."""
        residual.add_(self.layer.mixer(self.layer.norm(residual), lengths, cache))


def _of(fused: FusedLayer, layer: nn.Module) -> Mamba1Prompt | Mamba2Prompt | OwnLayer:
    if isinstance(fused, FloatLayer) and isinstance(layer, Layer):
        return OwnLayer(layer)
    if isinstance(fused, Mamba2Layer):
        return Mamba2Prompt.of(fused)
    if isinstance(fused, Mamba1Layer):
        return Mamba1Prompt.of(fused)
    raise NotFusedError(f"a {type(fused).__name__} has no kernels for prompts")


__all__ = ["PromptReader"]
