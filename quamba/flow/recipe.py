"""What is asked of a quantization, as a value that cannot hold an impossible combination."""

import math
from dataclasses import dataclass, fields
from typing import get_args

from quamba.errors import RecipeError
from quamba.observers.observer import ObserverKind

# Up to this width models lose by clipping more than a few elements in a hundred thousand.
_SMALL_D_MODEL = 768


@dataclass(frozen=True, slots=True)
class Recipe:
    """A quantization recipe.

    Attributes:
        w_bits: bits of the weights.
        a_bits: bits of the activations.
        percentile_alpha: in (0, 1]; None: the default for the model's size.
        observer: how the percentile is taken.

    Raises:
        RecipeError: a value or combination that cannot be built; says what can.
    """

    w_bits: int = 8
    a_bits: int = 8
    percentile_alpha: float | None = None
    observer: ObserverKind = "ema"

    def __post_init__(self) -> None:
        if (self.w_bits, self.a_bits) != (8, 8):
            raise RecipeError(f"W{self.w_bits}A{self.a_bits} is not supported; use w_bits 8 and a_bits 8")
        alpha = self.percentile_alpha
        if alpha is not None and not (math.isfinite(alpha) and 0.0 < alpha <= 1.0):
            raise RecipeError(f"percentile_alpha must be in (0, 1], not {alpha}; 1.0 clips nothing")
        if self.observer not in get_args(ObserverKind):
            raise RecipeError(f"observer must be one of {', '.join(get_args(ObserverKind))}, not {self.observer!r}")

    def alpha_for(self, d_model: int) -> float:
        """The quantile for tensors that a percentile observer watches."""
        if self.percentile_alpha is not None:
            return self.percentile_alpha
        return 0.99999 if d_model <= _SMALL_D_MODEL else 0.9995

    def facts(self) -> dict[str, int | float | str | None]:
        """The fields as plain values."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


__all__ = ["Recipe"]
