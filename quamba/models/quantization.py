"""The `quantization_config` of a saved model, as a value."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quamba.errors import ModelError
from quamba.models.config import CONFIG_FILE, read_values
from quamba.models.structure import Structure

QUANT_METHOD, FORMAT_VERSION = "quamba", 1


@dataclass(frozen=True, slots=True)
class Quantization:
    """How a saved model was quantized.

    Attributes:
        structure: what its tensors mean.
        weights_digest: "sha256:..." of its weights.
        recipe: the recipe's fields, as `quamba.flow.recipe.Recipe.facts` gives them.
        recipe_digest: see `quamba.flow.artifacts`.
        base_model: name and digest of the model that it was made of.
        calibration: data set, digest of the documents, how many, cut to how many tokens.
        path: of the file, for messages.
    """

    structure: Structure
    weights_digest: str
    recipe: Mapping[str, Any]
    recipe_digest: str
    base_model: Mapping[str, Any]
    calibration: Mapping[str, Any]
    path: Path

    def check_weights(self, digest: str) -> None:
        """That the weights beside it are its own.

        Raises:
            ModelError: they are not.
        """
        if digest != self.weights_digest:
            raise ModelError(
                f"{self.path.parent}: damaged: the weights are not the ones that were saved; save it again"
            )


def read_quantization(directory: Path) -> Quantization | None:
    """How the model in a directory is quantized; None: it is not.

    Raises:
        ModelError: another tool's method, a later format, or a damaged description.
    """
    path = directory / CONFIG_FILE
    values = read_values(directory)
    stored = values.get("quantization_config") if isinstance(values, dict) else None
    if stored is None:
        return None
    if not isinstance(stored, dict) or stored.get("quant_method") != QUANT_METHOD:
        method = stored.get("quant_method") if isinstance(stored, dict) else stored
        raise ModelError(f"{path}: quantized by {method!r}, which cannot be read; give the float model")
    if stored.get("format_version") != FORMAT_VERSION:
        raise ModelError(
            f"{path}: format {stored.get('format_version')!r} of a quantized model, only {FORMAT_VERSION} is known; "
            "quantize the model again, or install a newer version"
        )
    mappings = [stored.get(name) for name in ("recipe", "base_model", "calibration")]
    digests = [stored.get(name) for name in ("weights_digest", "recipe_digest")]
    if not all(isinstance(item, dict) for item in mappings) or not all(isinstance(item, str) for item in digests):
        raise ModelError(f"{path}: the quantization_config is damaged; quantize the model again")
    try:
        structure = Structure.from_dict(stored.get("structure"))
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    recipe, base_model, calibration = mappings
    return Quantization(
        structure=structure,
        weights_digest=str(digests[0]),
        recipe=recipe or {},
        recipe_digest=str(digests[1]),
        base_model=base_model or {},
        calibration=calibration or {},
        path=path,
    )


__all__ = ["FORMAT_VERSION", "QUANT_METHOD", "Quantization", "read_quantization"]
