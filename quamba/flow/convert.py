"""From a float model and its calibration to 8-bit weights and activations.

A layer is converted by putting quantized parts in the place of float ones; the mixer that joins them stays.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from quamba.models.config import ModelConfig
from quamba.nn.conv import CausalConv1d, QCausalConv1d
from quamba.nn.linear import Linear, QLinear
from quamba.nn.mamba1 import Mamba1Mixer
from quamba.nn.mamba2 import Mamba2Mixer
from quamba.nn.parameter import Parameter, QParameter

# The scale of one of a layer's tensors, by its op's name.
ScaleOf = Callable[[str], Tensor]


def convert_mixer(mixer: torch.nn.Module, scale: ScaleOf) -> None:
    """Convert one mixer in place to W8A8.

    Raises:
        TypeError: it is no float mixer of a known family.
    """
    if isinstance(mixer, Mamba1Mixer):
        _convert_mamba1(mixer, scale)
    elif isinstance(mixer, Mamba2Mixer):
        _convert_mamba2(mixer, scale)
    else:
        raise TypeError(f"cannot convert a {type(mixer).__name__}")


def _convert_mamba1(mixer: Mamba1Mixer, scale: ScaleOf) -> None:
    conv_out, parameters = scale("x_proj:input"), scale("x_proj:output")
    mixer.in_proj = QLinear.quantize(_linear(mixer.in_proj), scale("in_proj:input"), scale("in_proj:output"))
    mixer.conv1d = QCausalConv1d.quantize(_conv(mixer.conv1d), conv_out, (mixer.config.d_inner,))
    mixer.x_proj = QLinear.quantize(_linear(mixer.x_proj), conv_out, parameters)
    mixer.dt_proj = QLinear.quantize(_linear(mixer.dt_proj), parameters, scale("dt_proj:output"))
    mixer.out_proj = QLinear.quantize(_linear(mixer.out_proj), scale("out_proj:input"))
    mixer.A_log = QParameter.quantize(_parameter(mixer.A_log))
    mixer.D = QParameter.quantize(_parameter(mixer.D))
    mixer.dt_bias = QParameter.quantize(_parameter(mixer.dt_bias))
    mixer.state_scale = scale("ssm_state_act:input")


def _convert_mamba2(mixer: Mamba2Mixer, scale: ScaleOf) -> None:
    config: ModelConfig = mixer.config
    E, GN = config.d_inner, config.ngroups * config.d_state
    xBC = (E, GN, GN)
    projected = _spread(
        [scale(f"{name}:input") for name in ("z_act", "x_conv_in", "B_conv_in", "C_conv_in", "dt_act")],
        (E, *xBC, config.nheads),
    )
    conv_out = _spread([scale(f"{name}:input") for name in ("x_conv_out", "B_conv_out", "C_conv_out")], xBC)
    mixer.in_proj = QLinear.quantize(_linear(mixer.in_proj), scale("in_proj:input"), projected)
    mixer.conv1d = QCausalConv1d.quantize(_conv(mixer.conv1d), conv_out, xBC)
    mixer.out_proj = QLinear.quantize(_linear(mixer.out_proj), scale("out_proj:input"))
    mixer.A_log = QParameter.quantize(_parameter(mixer.A_log))
    mixer.D = QParameter.quantize(_parameter(mixer.D))
    # dt_bias stays as it is: heads differ by orders of magnitude, and it is H numbers.
    mixer.state_scale = scale("ssm_state_act:input")


def _spread(scales: list[Tensor], sizes: tuple[int, ...]) -> Tensor:
    """One scale for each channel, from one for each block of channels: float32 [sum of sizes]."""
    return torch.cat([scale.expand(size) for scale, size in zip(scales, sizes, strict=True)])


def _linear(part: torch.nn.Module) -> Linear:
    if not isinstance(part, Linear):
        raise TypeError(f"a {type(part).__name__} is no float layer: the model is quantized already")
    return part


def _conv(part: torch.nn.Module) -> CausalConv1d:
    if not isinstance(part, CausalConv1d):
        raise TypeError(f"a {type(part).__name__} is no float convolution: the model is quantized already")
    return part


def _parameter(part: torch.nn.Module) -> Parameter:
    if not isinstance(part, Parameter):
        raise TypeError(f"a {type(part).__name__} is no float parameter: the model is quantized already")
    return part


def size_bytes(model: torch.nn.Module) -> int:
    """Bytes of all tensors of a model as they lie in memory, shared ones once."""
    unique = {buffer.data_ptr(): buffer.nbytes for buffer in model.buffers()}
    return sum(unique.values())


__all__ = ["ScaleOf", "convert_mixer", "size_bytes"]
