"""The causal convolution by causal-conv1d's kernels, for what they can do."""

from dataclasses import dataclass

import torch
from torch import Tensor

from quamba.kernels.causal_conv1d import causal_conv1d
from quamba.kernels.packages import Kernel
from quamba.kernels.pieces import MAX_ELEMENTS

_WIDTHS = (2, 3, 4)
# Channels, and the distances between rows and tokens, are read so many at a time.
_CHANNELS = 8
_ALIGNMENT_BYTES = 16


@dataclass(frozen=True, slots=True)
class FusedConv1d:
    """`quamba.kernels.causal_conv1d.causal_conv1d` in one launch, with its SiLU.

    Sums are float32: with integer values they are exact, in whatever order they are taken.

    Args:
        prefill: `causal_conv1d.causal_conv1d_fn`.
        update: `causal_conv1d.causal_conv1d_update`.
    """

    prefill: Kernel
    update: Kernel

    def __call__(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, context: Tensor | None = None, *, silu: bool = False
    ) -> Tensor:
        """[Bt, L, C] to [Bt, L, C]; plain PyTorch for other widths than 2 to 4, or C that is no multiple of 8."""
        if not _supported(x, weight):
            return causal_conv1d(x, weight, bias, context, silu=silu)
        activation = "silu" if silu else None
        if x.shape[1] == 1 and context is not None:
            # It writes the inputs that come to be the last ones into what it is given: the memory is not its to change.
            shifted = context.clone(memory_format=torch.contiguous_format).transpose(1, 2)
            out: Tensor = self.update(x[:, 0], shifted, weight, bias, activation)
            return out[:, None]
        x = _aligned(x).transpose(1, 2)  # [Bt, C, L], channels last in memory
        initial = None if context is None else _aligned(context).transpose(1, 2)
        out = self.prefill(x, weight, bias, initial_states=initial, activation=activation)
        return out.transpose(1, 2)


def _supported(x: Tensor, weight: Tensor) -> bool:
    batch, length, channels = x.shape
    return (
        weight.shape[1] in _WIDTHS
        and channels % _CHANNELS == 0
        and x.dtype == weight.dtype == torch.float32
        and max(x.stride(0), length * channels) * batch <= MAX_ELEMENTS
    )


def _aligned(x: Tensor) -> Tensor:
    """[Bt, L, C] as it is, or a copy where distances or its beginning are not as the kernel needs them."""
    rows, tokens, channels = x.stride()
    fits = channels == 1 and rows % _CHANNELS == 0 and tokens % _CHANNELS == 0 and tokens >= x.shape[2]
    if fits and x.data_ptr() % _ALIGNMENT_BYTES == 0:
        return x
    return x.clone(memory_format=torch.contiguous_format)


__all__ = ["FusedConv1d"]
