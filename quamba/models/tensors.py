"""The tensors of a checkpoint, each taken once and with the shape that it must have."""

from collections.abc import Mapping

import torch
from torch import Tensor

from quamba.errors import ModelError
from quamba.nn.state import Kept, check

# transformers spells this one in the plural.
_ALIASES = {"backbone.embeddings.weight": "backbone.embedding.weight"}


class Tensors:
    """What a file holds, until it is taken.

    Args:
        tensors: by name.
        source: for messages.
    """

    def __init__(self, tensors: Mapping[str, Tensor], source: str) -> None:
        self._tensors = {_ALIASES.get(name, name): tensor for name, tensor in tensors.items()}
        self._source = source

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def take(self, name: str, *shape: int | None) -> Tensor:
        """A float tensor in float32; None in `shape` stands for any size.

        Raises:
            ModelError: it is not there, or of another shape, or not of floating point.
        """
        tensor = self._tensors.pop(name, None)
        if tensor is None:
            raise ModelError(f"{self._source}: the weights lack {name}; does config.json belong to them?")
        fits = tensor.ndim == len(shape) and all(
            want is None or have == want for have, want in zip(tensor.shape, shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise ModelError(
                f"{self._source}: {name} is [{', '.join(map(str, tensor.shape))}] where config.json says [{wanted}]"
            )
        if not tensor.dtype.is_floating_point:
            raise ModelError(f"{self._source}: {name} is {tensor.dtype}, not floating point: a quantized checkpoint?")
        return tensor.to(torch.float32).contiguous()

    def maybe(self, wanted: bool, name: str, *shape: int) -> Tensor | None:
        """The same, or None where it is not wanted."""
        return self.take(name, *shape) if wanted else None

    def part(self, prefix: str, kept: Mapping[str, Kept] | None = None) -> dict[str, Tensor]:
        """All tensors of a quantized part, as they are: those named `prefix`, a dot, and one name more.

        Args:
            prefix: the part's name.
            kept: what there must be; None: the part itself looks.

        Raises:
            ModelError: they are not what is kept.
        """
        start = f"{prefix}."
        names = [name for name in self._tensors if name.startswith(start) and "." not in name[len(start) :]]
        found = {name[len(start) :]: self._tensors.pop(name).contiguous() for name in names}
        if kept is not None:
            check(f"{self._source}: {prefix}", found, kept)
        return found

    def finish(self) -> None:
        """Nothing may be left.

        Raises:
            ModelError: something is.
        """
        if self._tensors:
            names = sorted(self._tensors)
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ModelError(f"{self._source}: the weights hold unknown tensors: {', '.join(names[:3])}{more}")


__all__ = ["Tensors"]
