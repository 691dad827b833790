"""The file that chooses the activations of a hybrid's layers: a JSON array of "W4A8" or "W4A16" (algorithm 6.3)."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from quamba.errors import RecipeError
from quamba.flow.recipe import HYBRID_SCHEMES


def read_hybrid(path: Path) -> tuple[str, ...]:
    """The choice for each layer.

    Raises:
        RecipeError: the file cannot be read, or holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as JSON ({error})") from None
    wanted = " or ".join(f'"{name}"' for name in HYBRID_SCHEMES)
    if not isinstance(values, list) or not values:
        raise RecipeError(f"{path}: give a JSON array with {wanted} for each layer")
    for layer, value in enumerate(values):
        if value not in HYBRID_SCHEMES:
            raise RecipeError(f"{path}: layer {layer} is {value!r}; use {wanted}")
    return tuple(values)


def write_hybrid(path: Path, layers: Sequence[str]) -> None:
    """Write the choice for each layer, a line each: whole, or the file stays as it was.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(json.dumps(list(layers), indent=0) + "\n", encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


__all__ = ["read_hybrid", "write_hybrid"]
