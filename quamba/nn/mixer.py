"""What the two mixers share: observation, padding and memory."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from quamba.kernels.causal_conv1d import last_inputs
from quamba.nn.cache import LayerCache
from quamba.qtypes import Activation, QTensor, quantize_int8, to_float

# Called with the names and widths of the watched tensors that lie side by side in one tensor's columns, its values
# [Bt, T, ...] and how many of the T entries of each row are real (int64 [Bt], None for all). T counts tokens, for
# states checkpoints.
Tap = Callable[[Mapping[str, int], Tensor, Tensor | None], None]

# The state is watched after every so many tokens and after the last one: longer prompts meet states that no final state
# of a calibration document has shown.
STATE_STRIDE = 128


def token_mask(length: int, lengths: Tensor) -> Tensor:
    """float32 [Bt, L, 1]: 1 for real tokens, 0 for padding."""
    positions = torch.arange(length, device=lengths.device)
    return (positions < lengths[:, None]).unsqueeze(-1).float()


def observe_state(tap: Tap, checkpoints: Tensor | None, lengths: Tensor | None) -> None:
    """Hand the states at checkpoints [Bt, T, ...] to `tap`; padding leaves states alone, so the last real checkpoint
    of a row is its final state."""
    if checkpoints is None:
        raise ValueError("the scan was asked for no checkpoints")
    counts = None if lengths is None else (lengths + STATE_STRIDE - 1) // STATE_STRIDE
    tap({"ssm_state_act:input": math.prod(checkpoints.shape[2:])}, checkpoints, counts)


def remember(
    cache: LayerCache,
    conv_input: Activation,
    state: Tensor,
    state_scale: Tensor | None,
    lengths: Tensor | None,
    width: int,
) -> None:
    """Keep what the next token needs: the last `width` inputs of the convolution, and the state.

    A quantized mixer keeps codes of both; the state is rounded here and nowhere else.
    """
    inputs = conv_input.codes if isinstance(conv_input, QTensor) else conv_input
    cache.conv = last_inputs(inputs, lengths, width, cache.conv)
    cache.state = state if state_scale is None else quantize_int8(state, state_scale)


def state_before(cache: LayerCache | None) -> Tensor | None:
    """The remembered state in float32, None before the first token."""
    return None if cache is None or cache.state is None else to_float(cache.state)


__all__ = ["STATE_STRIDE", "Tap", "observe_state", "remember", "state_before", "token_mask"]
