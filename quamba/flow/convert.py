"""From a float model and its calibration to quantized weights and activations.

A layer is converted by putting quantized parts in the place of float ones; the mixer that joins them stays.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from quamba.flow.recipe import Recipe
from quamba.granularity import SCHEMES, WeightScheme
from quamba.models.config import ModelConfig
from quamba.nn.conv import CausalConv1d, QCausalConv1d
from quamba.nn.embedding import Embedding, QEmbedding
from quamba.nn.linear import Linear, QLinear
from quamba.nn.mamba1 import Mamba1Mixer
from quamba.nn.mamba2 import Mamba2Mixer
from quamba.nn.model import MambaLM
from quamba.nn.parameter import Parameter, QParameter
from quamba.nn.state_scale import set_state_scale
from quamba.primitives import QuantizedWeight, quantize_weight

# The scale of one of a layer's tensors, by its op's name: a single value, or one for each of its channels.
ScaleOf = Callable[[str], Tensor]
# Weights that were solved for, by the name of their layer; others are rounded.
Solved = Mapping[str, QuantizedWeight]


def convert_mixer(mixer: torch.nn.Module, scheme: WeightScheme, scale: ScaleOf, solved: Solved | None = None) -> None:
    """Convert one mixer in place.

    With 8-bit activations everything is quantized, dt_proj always to 8 bits; with float ones the weights of the large
    projections alone, and the rest computes in float.

    Args:
        mixer: float.
        scheme: of its projections.
        scale: of its tensors; not asked where activations stay float.
        solved: weights of "in_proj" and "out_proj", where they are not to be rounded.

    Raises:
        TypeError: it is no float mixer of a known family.
    """
    solved = solved or {}
    if isinstance(mixer, Mamba1Mixer):
        (_convert_mamba1 if scheme.activation_bits == 8 else _weights_of_mamba1)(mixer, scheme, scale, solved)
    elif isinstance(mixer, Mamba2Mixer):
        (_convert_mamba2 if scheme.activation_bits == 8 else _weights_of_mamba2)(mixer, scheme, scale, solved)
    else:
        raise TypeError(f"cannot convert a {type(mixer).__name__}")


def _convert_mamba1(mixer: Mamba1Mixer, scheme: WeightScheme, scale: ScaleOf, solved: Solved) -> None:
    conv_out, parameters = scale("x_proj:input"), scale("x_proj:output")
    in_proj, out_proj = solved.get("in_proj"), solved.get("out_proj")
    mixer.in_proj = _project(mixer.in_proj, scheme, in_proj, scale("in_proj:input"), scale("in_proj:output"))
    mixer.conv1d = QCausalConv1d.quantize(_conv(mixer.conv1d), conv_out, (mixer.config.d_inner,))
    mixer.x_proj = _project(mixer.x_proj, scheme, None, conv_out, parameters)
    mixer.dt_proj = _project(mixer.dt_proj, SCHEMES["W8A8"], None, parameters, scale("dt_proj:output"))
    mixer.out_proj = _project(mixer.out_proj, scheme, out_proj, scale("out_proj:input"))
    mixer.A_log = QParameter.quantize(_parameter(mixer.A_log))
    mixer.D = QParameter.quantize(_parameter(mixer.D))
    mixer.dt_bias = QParameter.quantize(_parameter(mixer.dt_bias))
    set_state_scale(mixer, scale("ssm_state_act:input"))


def _convert_mamba2(mixer: Mamba2Mixer, scheme: WeightScheme, scale: ScaleOf, solved: Solved) -> None:
    config: ModelConfig = mixer.config
    E, GN = config.d_inner, config.ngroups * config.d_state
    xBC = (E, GN, GN)
    blocks = (E, *xBC, config.nheads)
    projected = _spread(
        [scale(f"{name}:input") for name in ("z_act", "x_conv_in", "B_conv_in", "C_conv_in", "dt_act")], blocks
    )
    conv_out = _spread([scale(f"{name}:input") for name in ("x_conv_out", "B_conv_out", "C_conv_out")], xBC)
    in_proj, out_proj = solved.get("in_proj"), solved.get("out_proj")
    mixer.in_proj = _project(mixer.in_proj, scheme, in_proj, scale("in_proj:input"), projected, blocks)
    mixer.conv1d = QCausalConv1d.quantize(_conv(mixer.conv1d), conv_out, xBC)
    mixer.out_proj = _project(mixer.out_proj, scheme, out_proj, scale("out_proj:input"))
    mixer.A_log = QParameter.quantize(_parameter(mixer.A_log))
    mixer.D = QParameter.quantize(_parameter(mixer.D))
    # dt_bias stays as it is: heads differ by orders of magnitude, and it is H numbers.
    set_state_scale(mixer, scale("ssm_state_act:input"))


def _weights_of_mamba1(mixer: Mamba1Mixer, scheme: WeightScheme, _scale: ScaleOf, solved: Solved) -> None:
    mixer.in_proj = _project(mixer.in_proj, scheme, solved.get("in_proj"))
    mixer.x_proj = _project(mixer.x_proj, scheme, None)
    mixer.out_proj = _project(mixer.out_proj, scheme, solved.get("out_proj"))


def _weights_of_mamba2(mixer: Mamba2Mixer, scheme: WeightScheme, _scale: ScaleOf, solved: Solved) -> None:
    mixer.in_proj = _project(mixer.in_proj, scheme, solved.get("in_proj"))
    mixer.out_proj = _project(mixer.out_proj, scheme, solved.get("out_proj"))


def convert_ends(model: MambaLM, recipe: Recipe, head_in_scale: Tensor | None, head: QuantizedWeight | None) -> None:
    """Convert embedding and head in place, as the recipe says; what stays float is rounded to half precision.

    That is what a saved model keeps: in a small one they are most of it, and a rotation made two of one.

    Args:
        model: its embedding and head are float.
        recipe: which of them, and to what.
        head_in_scale: of the head's input, where that is to be 8 bits.
        head: its weight where it is not to be rounded.

    Raises:
        TypeError: they are quantized already.
    """
    if not isinstance(model.embedding, Embedding):
        raise TypeError(f"a {type(model.embedding).__name__} is no float embedding: it is quantized already")
    lm_head, embedding = float_linear(model.lm_head), model.embedding
    tied = lm_head.weight.data_ptr() == embedding.weight.data_ptr()
    if recipe.quantize_embedding:
        model.embedding = QEmbedding.quantize(embedding, recipe.w_bits)
    else:
        embedding.weight = _half(embedding.weight)
    if recipe.head_scheme is not None:
        model.lm_head = _project(lm_head, recipe.head_scheme, head, head_in_scale)
    else:
        lm_head.weight = embedding.weight if tied and not recipe.quantize_embedding else _half(lm_head.weight)


def _half(weight: Tensor) -> Tensor:
    """float32, with values that float16 has; as it was where they are too large for that."""
    half = weight.half()
    return half.float() if bool(half.isfinite().all()) else weight


def _project(
    part: torch.nn.Module,
    scheme: WeightScheme,
    solved: QuantizedWeight | None,
    in_scale: Tensor | None = None,
    out_scale: Tensor | None = None,
    blocks: Sequence[int] | None = None,
) -> QLinear:
    linear = float_linear(part)
    weight = solved or quantize_weight(linear.weight, scheme, blocks=blocks)
    if scheme.activation_bits == 16:
        in_scale = None
    return QLinear.of(weight, in_scale, out_scale, linear.bias)


def _spread(scales: list[Tensor], sizes: tuple[int, ...]) -> Tensor:
    """One scale for each channel, from one for each block of channels or all of them: float32 [sum of sizes]."""
    return torch.cat([scale.expand(size) for scale, size in zip(scales, sizes, strict=True)])


def float_linear(part: torch.nn.Module) -> Linear:
    """The part as the float layer it is.

    Raises:
        TypeError: it is none.
    """
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


__all__ = ["ScaleOf", "Solved", "convert_ends", "convert_mixer", "float_linear"]
