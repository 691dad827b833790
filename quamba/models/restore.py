"""From the tensors of a saved quantized model to the model: what `quamba.models.build` is for float ones."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from quamba.errors import ModelError
from quamba.granularity import SCHEMES, WeightScheme
from quamba.models.config import ModelConfig
from quamba.models.structure import Structure
from quamba.models.tensors import Tensors
from quamba.nn.conv import CausalConv1d, QCausalConv1d
from quamba.nn.embedding import Embedding, QEmbedding
from quamba.nn.linear import Linear, QLinear
from quamba.nn.mamba1 import Mamba1Mixer
from quamba.nn.mamba2 import Mamba2Mixer, PlainGate
from quamba.nn.model import Layer, MambaLM
from quamba.nn.norm import GatedRMSNorm, RMSNorm
from quamba.nn.parameter import Parameter, QParameter
from quamba.nn.state import Kept, check
from quamba.nn.state_scale import set_state_scale, set_state_scale_rows
from quamba.qtypes import QTensor
from quamba.transforms.hadamard import Hadamard, HadamardFactors
from quamba.transforms.reorder import RestoreOrder


def restore_model(config: ModelConfig, structure: Structure, tensors: Mapping[str, Tensor], source: str) -> MambaLM:
    """The model, bit for bit as it was saved.

    Args:
        config: sizes.
        structure: the forms of its parts.
        tensors: by the names that `quamba.models.saving` gives them.
        source: for messages.

    Raises:
        ModelError: tensors are missing, unknown, or of other types or shapes.
    """
    if len(structure.layers) != config.n_layer:
        raise ModelError(f"{source}: config.json says {config.n_layer} layers and describes {len(structure.layers)}")
    stored = Tensors(tensors, source)
    layers = [
        _layer(config, structure, scheme, stored, f"backbone.layers.{index}.")
        for index, scheme in enumerate(structure.layers)
    ]
    embedding = _embedding(config, structure, stored)
    vocabulary = embedding.shape[0] if isinstance(embedding, QEmbedding) else len(embedding.weight)
    if vocabulary < config.vocab_size:
        raise ModelError(f"{source}: the embedding has {vocabulary} rows where config.json says {config.vocab_size}")
    lm_head: nn.Module
    if structure.lm_head is None and "lm_head.weight" not in stored and isinstance(embedding, Embedding):
        lm_head = Linear(embedding.weight)
    else:
        lm_head = _linear(stored, "lm_head", (vocabulary, config.d_model), structure.lm_head)
    norm_f = RMSNorm(stored.take("backbone.norm_f.weight", config.d_model), config.norm_eps)
    stored.finish()
    model = MambaLM(config, embedding, layers, norm_f, lm_head)
    if structure.residual is not None:
        model.residual_rotation = Hadamard(structure.residual)
    return model


def _embedding(config: ModelConfig, structure: Structure, stored: Tensors) -> Embedding | QEmbedding:
    if structure.embedding_bits is None:
        return Embedding(stored.take("backbone.embedding.weight", None, config.d_model))
    found = stored.part("backbone.embedding")
    rows = len(found["codes"]) if "codes" in found else 0
    return QEmbedding(structure.embedding_bits, (rows, config.d_model), found)


def _layer(
    config: ModelConfig, structure: Structure, scheme: WeightScheme | None, stored: Tensors, prefix: str
) -> Layer:
    norm = RMSNorm(stored.take(f"{prefix}norm.weight", config.d_model), config.norm_eps)
    mixer = _mixer(config, scheme, stored, f"{prefix}mixer.")
    if structure.out_proj is not None:
        mixer.rotation = _rotation(config, structure.out_proj, stored, f"{prefix}mixer.rotation.0")
    return Layer(norm, mixer)


def _rotation(config: ModelConfig, factors: HadamardFactors, stored: Tensors, name: str) -> nn.Module:
    """A Hadamard transform, after the channels' old order where heads were reordered."""
    if f"{name}.places" not in stored:
        return Hadamard(factors)
    E = config.d_inner
    places = stored.part(name, {"places": Kept(torch.int32, ((E,),))})["places"].long()
    if not torch.equal(places.sort().values, torch.arange(E)):
        raise ModelError(f"{name} does not permute the {E} channels; quantize the model again")
    return nn.Sequential(RestoreOrder(places.argsort()), Hadamard(factors))


def _mixer(config: ModelConfig, scheme: WeightScheme | None, stored: Tensors, prefix: str) -> Mamba1Mixer | Mamba2Mixer:
    E, D, N = config.d_inner, config.d_model, config.d_state
    quantized = scheme is not None and scheme.activation_bits == 8
    parts: dict[str, nn.Module] = {
        "conv1d": (_qconv if quantized else _conv)(config, stored, f"{prefix}conv1d"),
        "out_proj": _linear(stored, f"{prefix}out_proj", (D, E), scheme, config.bias),
    }
    parameters: dict[str, tuple[int, ...]]
    kept_float: tuple[str, ...] = ()
    if config.family == "mamba1":
        R = config.dt_rank
        parts["in_proj"] = _linear(stored, f"{prefix}in_proj", (2 * E, D), scheme, config.bias)
        parts["x_proj"] = _linear(stored, f"{prefix}x_proj", (R + 2 * N, E), scheme)
        parts["dt_proj"] = _linear(stored, f"{prefix}dt_proj", (E, R), SCHEMES["W8A8"] if quantized else None)
        parameters = {"A_log": (E, N), "D": (E,), "dt_bias": (E,)}
    else:
        H, rows = config.nheads, E + config.conv_dim + config.nheads
        parts["in_proj"] = _linear(stored, f"{prefix}in_proj", (rows, D), scheme, config.bias)
        parts["norm"] = _gate(config, stored, f"{prefix}norm")
        parameters, kept_float = {"A_log": (H,), "D": (E if config.D_has_hdim else H,), "dt_bias": (H,)}, ("dt_bias",)
    for name, shape in parameters.items():
        make = _qparameter if quantized and name not in kept_float else _parameter
        parts[name] = make(stored, f"{prefix}{name}", shape)
    mixer = (Mamba1Mixer if config.family == "mamba1" else Mamba2Mixer)(config, parts)
    if quantized:
        _state_scale(mixer, config, stored, prefix.removesuffix("."))
    return mixer


def _linear(
    stored: Tensors, name: str, shape: tuple[int, int], scheme: WeightScheme | None, bias: bool = False
) -> Linear | QLinear:
    if scheme is not None:
        return QLinear(scheme, shape, stored.part(name))
    return Linear(stored.take(f"{name}.weight", *shape), stored.maybe(bias, f"{name}.bias", shape[0]))


def _conv(config: ModelConfig, stored: Tensors, name: str) -> CausalConv1d:
    weight = stored.take(f"{name}.weight", config.conv_dim, config.d_conv)
    return CausalConv1d(weight, stored.maybe(config.conv_bias, f"{name}.bias", config.conv_dim))


def _qconv(config: ModelConfig, stored: Tensors, name: str) -> QCausalConv1d:
    C = config.conv_dim
    kept = {
        "codes": Kept(torch.int8, ((C, config.d_conv),)),
        "weight_scale": Kept(torch.float32, ((C,),)),
        "out_scale": Kept(torch.float32, ((), (C,))),
    }
    if config.conv_bias:
        kept["bias_codes"], kept["bias_scale"] = Kept(torch.int8, ((C,),)), Kept(torch.float32, ((C,),))
    found = stored.part(name, kept)
    bias = QTensor(found["bias_codes"], found["bias_scale"]) if config.conv_bias else None
    return QCausalConv1d(found["codes"], found["weight_scale"], bias, found["out_scale"])


def _gate(config: ModelConfig, stored: Tensors, name: str) -> nn.Module:
    if not config.rmsnorm:
        return PlainGate()
    weight = stored.take(f"{name}.weight", config.d_inner)
    return GatedRMSNorm(weight, config.norm_eps, config.ngroups, config.norm_before_gate)


def _parameter(stored: Tensors, name: str, shape: tuple[int, ...]) -> Parameter:
    return Parameter(stored.take(f"{name}.weight", *shape))


def _qparameter(stored: Tensors, name: str, shape: tuple[int, ...]) -> QParameter:
    kept = {"codes": Kept(torch.int8, (shape,)), "scale": Kept(torch.float32, ((),))}
    return QParameter(**stored.part(name, kept))


def _state_scale(mixer: nn.Module, config: ModelConfig, stored: Tensors, name: str) -> None:
    if f"{name}.state_scale" in stored:
        set_state_scale(mixer, stored.part(name, {"state_scale": Kept(torch.float32, ((),))})["state_scale"])
        return
    found = stored.part(name)
    table, rows = found.get("state_scale_table"), found.get("state_scale_rows")
    wanted = {
        "state_scale_table": Kept(torch.float32, ((0 if table is None else len(table), config.d_state),)),
        "state_scale_rows": Kept(torch.int16, ((config.nheads, config.headdim),)),
    }
    check(f"the state of {name}", found, wanted)
    assert table is not None, "checked"  # noqa: S101
    assert rows is not None, "checked"  # noqa: S101
    if not 0 <= int(rows.min()) <= int(rows.max()) < len(table):
        raise ModelError(f"the state's scales of {name} point outside their table of {len(table)} rows")
    set_state_scale_rows(mixer, table, rows)


__all__ = ["restore_model"]
