"""What a quantized part keeps: its tensors by name, each with the type and the shapes that it must have."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quamba.errors import ModelError


@dataclass(frozen=True, slots=True)
class Kept:
    """One kept tensor.

    Attributes:
        dtype: its type.
        shapes: the shapes it can have.
        optional: a part can do without it.
    """

    dtype: torch.dtype
    shapes: tuple[tuple[int, ...], ...]
    optional: bool = False


def check(part: str, tensors: Mapping[str, Tensor | None], kept: Mapping[str, Kept]) -> dict[str, Tensor]:
    """The tensors of a part that are there: what it keeps, and nothing else.

    Args:
        part: what messages call it.
        tensors: by name; None is the same as absent.
        kept: what there must be.

    Raises:
        ModelError: a tensor is missing, or not expected, or of another type or shape.
    """
    present = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    for name in sorted(present.keys() - kept.keys()):
        raise ModelError(f"{part} has no tensor {name!r}; it keeps {', '.join(kept)}")
    for name, spec in kept.items():
        tensor = present.get(name)
        if tensor is None:
            if not spec.optional:
                raise ModelError(f"{part} lacks the tensor {name!r}; it keeps {', '.join(kept)}")
        elif tensor.dtype != spec.dtype or tuple(tensor.shape) not in spec.shapes:
            wanted = " or ".join(str(list(shape)) for shape in spec.shapes)
            raise ModelError(f"{name!r} of {part} is {tensor.dtype} {list(tensor.shape)}, not {spec.dtype} {wanted}")
    return present


def register(module: nn.Module, part: str, tensors: Mapping[str, Tensor | None], kept: Mapping[str, Kept]) -> None:
    """Make tensors the buffers of a part, as `check` finds them; an optional one that is absent is None.

    Raises:
        ModelError: as `check`.
    """
    present = check(part, tensors, kept)
    for name in kept:
        module.register_buffer(name, present.get(name))


__all__ = ["Kept", "check", "register"]
