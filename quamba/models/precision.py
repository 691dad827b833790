"""The unquantized model with its products in half precision, as published models are run."""

import copy
from dataclasses import replace

import torch

from quamba.errors import ModelError
from quamba.models.loading import LoadedModel
from quamba.nn.embedding import Embedding
from quamba.nn.linear import Linear
from quamba.nn.model import MambaLM

# What products can run in, by the names that configuration files have for it.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def products_in(model: MambaLM, name: str) -> MambaLM:
    """See `in_dtype`."""
    shared = {id(buffer): buffer for buffer in model.buffers()}
    model = copy.deepcopy(model, shared)
    changed: dict[int, torch.Tensor] = {}
    for part in model.modules():
        if isinstance(part, Linear | Embedding):
            # A head that is tied to the embedding stays so.
            part.weight = changed.setdefault(id(part.weight), part.weight.to(DTYPES[name]))
    return model


def in_dtype(loaded: LoadedModel, name: str) -> LoadedModel:
    """The model with the weights of its products and its embedding in another type.

    Everything between products stays float32: the residual stream, norms, convolutions and scans, and so `A_log`, `D`,
    `dt_bias` and `dt_proj`'s bias (specification of the recipe, section 1.5). What is not changed is shared with the
    model that is given, which stays as it is.

    Args:
        loaded: the unquantized model.
        name: one of `DTYPES`.

    Raises:
        ModelError: it is quantized, or there is no such type.
    """
    if name not in DTYPES:
        raise ModelError(f"no dtype {name!r}; use one of {', '.join(DTYPES)}")
    if name == "float32":
        return loaded
    if loaded.quantization is not None:
        raise ModelError(f"{loaded.name} is quantized: its products run in what it was quantized for, not in {name}")
    return replace(loaded, model=products_in(loaded.model, name))


__all__ = ["DTYPES", "in_dtype", "products_in"]
