"""Rotation of a model into a basis without outliers, with the same output (arXiv 2410.13229; QuaRot, 2404.00456).

The residual stream is rotated by H_D once and for all: its writers write x H_D, its readers read W H_D. That is exact
because a norm of unit weight commutes with a rotation, and it holds only if *every* reader and writer is rotated. Here
all layers are Mamba mixers. A hybrid's attention and MLP layers read and write the same stream: they would have to be
rotated too, or none. A LayerNorm could not be: it subtracts a mean, which does not commute.

What out_proj reads is rotated by H_E while the model runs, after the gate (Mamba-1) or the gated norm (Mamba-2), which
work on channels and so stay in the natural basis, as do convolution, x_proj, dt_proj and scan.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from quamba.errors import RecipeError
from quamba.nn.embedding import Embedding
from quamba.nn.linear import Linear
from quamba.nn.mamba1 import Mamba1Mixer
from quamba.nn.mamba2 import Mamba2Mixer
from quamba.nn.model import Layer, MambaLM
from quamba.nn.norm import RMSNorm
from quamba.transforms.hadamard import Hadamard

# Weights are rotated in float64 so many elements at a time: the largest embeddings would take gigabytes.
_ELEMENTS_AT_ONCE = 1 << 22


def rotate_model(model: MambaLM) -> None:
    """Rotate the residual stream and what each out_proj reads, in place.

    A head that was tied becomes a tensor of its own, of the embedding's size.

    Raises:
        RecipeError: something is rotated already. Nothing was changed.
        TypeError: a part is not one of the float model. Nothing was changed.
    """
    mixers = [layer.mixer for layer in _layers(model)]
    for mixer in mixers:
        _check_output(mixer)
    rotate_residual(model)
    for mixer in mixers:
        rotate_output(mixer)


def rotate_residual(model: MambaLM) -> None:
    """Rotate the residual stream by H_D, in place: all that does not touch the columns of out_proj.

    E <- E H_D;  W_head <- (W_head * w_f) H_D;  W_in <- (W_in * w_norm) H_D;  W_out <- H_D^T W_out;  w_f, w_norm <- 1.
    Products are taken in float64 and rounded once. Then `model.residual_rotation` is H_D, and the head is not tied.

    Raises:
        RecipeError: it is rotated already. Nothing was changed.
        TypeError: a part is not one of the float model. Nothing was changed.
    """
    if not isinstance(model.residual_rotation, nn.Identity):
        raise RecipeError("the model's residual stream is rotated already; load the model anew to rotate it")
    layers = _layers(model)
    projections = [_projections(layer.mixer) for layer in layers]
    norms = [_norm(norm) for norm in (*(layer.norm for layer in layers), model.norm_f)]
    embedding, head = model.embedding, _linear(model.lm_head)
    if not isinstance(embedding, Embedding):
        raise TypeError(f"a {type(embedding).__name__} is no float embedding: rotate before quantizing")
    H = Hadamard(model.config.d_model, torch.float64).to(model.device)
    head.weight = _rotate_rows(head.weight, H, model.norm_f.weight)
    embedding.weight = _rotate_rows(embedding.weight, H)
    model.config = replace(model.config, tie_embeddings=False)
    for layer, (in_proj, out_proj) in zip(layers, projections, strict=True):
        in_proj.weight = _rotate_rows(in_proj.weight, H, layer.norm.weight)
        out_proj.weight = _rotate_rows(out_proj.weight.T, H).T.contiguous()
        if out_proj.bias is not None:
            out_proj.bias = _rotate_rows(out_proj.bias[None], H)[0]
    for norm in norms:
        norm.weight = torch.ones_like(norm.weight)
    model.residual_rotation = Hadamard(model.config.d_model).to(model.device)


def rotate_output(mixer: nn.Module) -> None:
    """Rotate what out_proj reads by H_E, in place: W_out <- W_out H_E, and `mixer.rotation` is H_E from now on.

    Reordering heads permutes the columns of an unrotated out_proj, so it comes before this.

    Raises:
        RecipeError: it is rotated already. Nothing was changed.
        TypeError: it is no float mixer. Nothing was changed.
    """
    out_proj = _check_output(mixer)
    size, device = out_proj.weight.shape[1], out_proj.weight.device
    out_proj.weight = _rotate_rows(out_proj.weight, Hadamard(size, torch.float64).to(device))
    mixer.rotation = Hadamard(size).to(device)


def _rotate_rows(weight: Tensor, H: Hadamard, scale: Tensor | None = None) -> Tensor:
    """(weight * scale) H in float64, rounded once to the dtype of `weight`: [rows, n] to [rows, n]."""
    rotated = torch.empty_like(weight)
    rows = max(1, _ELEMENTS_AT_ONCE // weight.shape[1])
    for start in range(0, len(weight), rows):
        part = weight[start : start + rows].double()
        rotated[start : start + rows] = H(part if scale is None else part * scale)
    return rotated


def _layers(model: MambaLM) -> list[Layer]:
    layers = []
    for layer in model.layers:
        if not isinstance(layer, Layer):
            raise TypeError(
                f"cannot rotate a {type(layer).__name__}: every reader of the residual stream must be known"
            )
        layers.append(layer)
    return layers


def _norm(norm: nn.Module) -> RMSNorm:
    if not isinstance(norm, RMSNorm):
        raise TypeError(f"a {type(norm).__name__} is no float RMSNorm: rotate before quantizing")
    return norm


def _projections(mixer: nn.Module) -> tuple[Linear, Linear]:
    if not isinstance(mixer, Mamba1Mixer | Mamba2Mixer):
        raise TypeError(f"cannot rotate a {type(mixer).__name__}: only Mamba-1 and Mamba-2 mixers are known")
    return _linear(mixer.in_proj), _linear(mixer.out_proj)


def _linear(part: nn.Module) -> Linear:
    if not isinstance(part, Linear):
        raise TypeError(
            f"a {type(part).__name__} is no float layer: the model is quantized already, and rotation comes before"
        )
    return part


def _check_output(mixer: nn.Module) -> Linear:
    """Its out_proj, if that is neither rotated nor quantized."""
    _, out_proj = _projections(mixer)
    if not isinstance(mixer.rotation, nn.Identity):
        raise RecipeError("what out_proj reads is rotated already; load the model anew to rotate it")
    return out_proj


__all__ = ["rotate_model", "rotate_output", "rotate_residual"]
