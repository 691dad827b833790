"""From named tensors to a model: both layouts' names, checked shapes, float32."""

from torch import Tensor, nn

from quamba.errors import ModelError
from quamba.models.config import ModelConfig
from quamba.models.tensors import Tensors
from quamba.nn.conv import CausalConv1d
from quamba.nn.embedding import Embedding
from quamba.nn.linear import Linear
from quamba.nn.mamba1 import Mamba1Mixer
from quamba.nn.mamba2 import Mamba2Mixer, PlainGate
from quamba.nn.model import Layer, MambaLM
from quamba.nn.norm import GatedRMSNorm, RMSNorm
from quamba.nn.parameter import Parameter


def build_model(config: ModelConfig, tensors: dict[str, Tensor], source: str) -> MambaLM:
    """The float32 model.

    Args:
        config: sizes.
        tensors: by the names of mamba-ssm or of transformers, of any floating dtype.
        source: for messages.

    Raises:
        ModelError: tensors are missing, unknown or of other shapes.
    """
    weights = Tensors(tensors, source)
    embedding = weights.take("backbone.embedding.weight", None, config.d_model)
    if embedding.shape[0] < config.vocab_size:
        raise ModelError(
            f"{source}: the embedding has {embedding.shape[0]} rows where config.json says {config.vocab_size}"
        )
    layers = [_build_layer(config, weights, f"backbone.layers.{i}.") for i in range(config.n_layer)]
    norm_f = RMSNorm(weights.take("backbone.norm_f.weight", config.d_model), config.norm_eps)
    head = embedding
    if "lm_head.weight" in weights:
        stored = weights.take("lm_head.weight", *embedding.shape)
        # A tied file may hold it too; transformers leaves it out or in as the tie says.
        head = embedding if config.tie_embeddings else stored
    elif config.tie_embeddings is False:
        raise ModelError(f"{source}: config.json says that the head is not tied, but lm_head.weight is not there")
    weights.finish()
    return MambaLM(config, Embedding(embedding), layers, norm_f, Linear(head))


def _build_layer(config: ModelConfig, weights: Tensors, prefix: str) -> Layer:
    norm = RMSNorm(weights.take(f"{prefix}norm.weight", config.d_model), config.norm_eps)
    build = _mamba1_parts if config.family == "mamba1" else _mamba2_parts
    parts = build(config, weights, f"{prefix}mixer.")
    mixer = Mamba1Mixer if config.family == "mamba1" else Mamba2Mixer
    return Layer(norm, mixer(config, parts))


def _linear(weights: Tensors, name: str, rows: int, columns: int, bias: bool) -> Linear:
    return Linear(weights.take(f"{name}.weight", rows, columns), weights.maybe(bias, f"{name}.bias", rows))


def _conv(config: ModelConfig, weights: Tensors, prefix: str) -> CausalConv1d:
    weight = weights.take(f"{prefix}conv1d.weight", config.conv_dim, 1, config.d_conv)
    return CausalConv1d(weight[:, 0], weights.maybe(config.conv_bias, f"{prefix}conv1d.bias", config.conv_dim))


def _mamba1_parts(config: ModelConfig, weights: Tensors, prefix: str) -> dict[str, nn.Module]:
    E, N, R, D = config.d_inner, config.d_state, config.dt_rank, config.d_model
    return {
        "in_proj": _linear(weights, f"{prefix}in_proj", 2 * E, D, config.bias),
        "conv1d": _conv(config, weights, prefix),
        "x_proj": _linear(weights, f"{prefix}x_proj", R + 2 * N, E, bias=False),
        # Its bias is added before the softplus, in float32: the scan's dt_bias.
        "dt_proj": Linear(weights.take(f"{prefix}dt_proj.weight", E, R)),
        "dt_bias": Parameter(weights.take(f"{prefix}dt_proj.bias", E)),
        "A_log": Parameter(weights.take(f"{prefix}A_log", E, N)),
        "D": Parameter(weights.take(f"{prefix}D", E)),
        "out_proj": _linear(weights, f"{prefix}out_proj", D, E, config.bias),
    }


def _mamba2_parts(config: ModelConfig, weights: Tensors, prefix: str) -> dict[str, nn.Module]:
    E, H, D = config.d_inner, config.nheads, config.d_model
    norm: nn.Module = PlainGate()
    if config.rmsnorm:
        weight = weights.take(f"{prefix}norm.weight", E)
        norm = GatedRMSNorm(weight, config.norm_eps, config.ngroups, config.norm_before_gate)
    return {
        "in_proj": _linear(weights, f"{prefix}in_proj", E + config.conv_dim + H, D, config.bias),
        "conv1d": _conv(config, weights, prefix),
        "norm": norm,
        "dt_bias": Parameter(weights.take(f"{prefix}dt_bias", H)),
        "A_log": Parameter(weights.take(f"{prefix}A_log", H)),
        "D": Parameter(weights.take(f"{prefix}D", E if config.D_has_hdim else H)),
        "out_proj": _linear(weights, f"{prefix}out_proj", D, E, config.bias),
    }


__all__ = ["build_model"]
