"""What the tensors of a quantized model mean: which scheme each layer has, and what is rotated."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from quamba.errors import ModelError, RecipeError
from quamba.granularity import WeightScheme
from quamba.nn.embedding import QEmbedding
from quamba.nn.linear import QLinear
from quamba.nn.model import Layer, MambaLM
from quamba.transforms.hadamard import Hadamard, HadamardFactors

_KEYS = ("schemes", "layers", "lm_head", "embedding_bits", "hadamard")
_ROTATIONS = ("residual", "out_proj")


@dataclass(frozen=True, slots=True)
class Structure:
    """The forms of a model's parts.

    Attributes:
        layers: the scheme of each layer's projections; None: the layer is float.
        lm_head: the head's; None: it is float.
        embedding_bits: 8 or 4; None: it is float.
        residual, out_proj: the rotations of the residual stream and of what each out_proj reads; None: natural.
    """

    layers: tuple[WeightScheme | None, ...]
    lm_head: WeightScheme | None
    embedding_bits: int | None
    residual: HadamardFactors | None
    out_proj: HadamardFactors | None

    @classmethod
    def of(cls, model: MambaLM) -> "Structure":
        """That of a model.

        Raises:
            ModelError: its mixers are not rotated alike.
        """
        mixers = [layer.mixer for layer in model.layers if isinstance(layer, Layer)]
        rotations = {_factors(getattr(mixer, "rotation", None)) for mixer in mixers}
        if len(rotations) != 1:
            raise ModelError("the mixers are not rotated alike: such a model has no structure that can be stored")
        return cls(
            layers=tuple(_scheme(getattr(mixer, "in_proj", None)) for mixer in mixers),
            lm_head=_scheme(model.lm_head),
            embedding_bits=model.embedding.num_bits if isinstance(model.embedding, QEmbedding) else None,
            residual=_factors(model.residual_rotation),
            out_proj=rotations.pop(),
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for a `quantization_config`."""
        used = {scheme.name: scheme for scheme in (*self.layers, self.lm_head) if scheme is not None}
        return {
            "schemes": {name: scheme.facts() for name, scheme in sorted(used.items())},
            "layers": [None if scheme is None else scheme.name for scheme in self.layers],
            "lm_head": None if self.lm_head is None else self.lm_head.name,
            "embedding_bits": self.embedding_bits,
            "hadamard": {
                name: None if factors is None else asdict(factors)
                for name, factors in zip(_ROTATIONS, (self.residual, self.out_proj), strict=True)
            },
        }

    @classmethod
    def from_dict(cls, values: object) -> "Structure":
        """The inverse of `to_dict`.

        Raises:
            ModelError: the values describe no structure.
        """
        if not isinstance(values, Mapping) or set(values) != set(_KEYS):
            raise ModelError(f"a stored structure has the keys {', '.join(_KEYS)}; quantize the model again")
        try:
            schemes = {name: WeightScheme.from_facts(facts) for name, facts in values["schemes"].items()}
            rotations = [values["hadamard"][name] for name in _ROTATIONS]
            bits = values["embedding_bits"]
            if bits not in (None, 4, 8):
                raise ValueError(f"an embedding of {bits!r} bits")
            return cls(
                layers=tuple(None if name is None else schemes[name] for name in values["layers"]),
                lm_head=None if values["lm_head"] is None else schemes[values["lm_head"]],
                embedding_bits=bits,
                residual=None if rotations[0] is None else HadamardFactors(**rotations[0]),
                out_proj=None if rotations[1] is None else HadamardFactors(**rotations[1]),
            )
        except (AttributeError, KeyError, TypeError, ValueError, RecipeError) as error:
            raise ModelError(f"the stored structure is damaged ({error}); quantize the model again") from None


def _scheme(part: object) -> WeightScheme | None:
    return part.scheme if isinstance(part, QLinear) else None


def _factors(rotation: nn.Module | None) -> HadamardFactors | None:
    if isinstance(rotation, nn.Sequential):  # The order of channels is restored first.
        rotation = rotation[-1]
    return rotation.factors if isinstance(rotation, Hadamard) else None


__all__ = ["Structure"]
