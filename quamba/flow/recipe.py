"""What is asked of a quantization, as a value that cannot hold an impossible combination."""

from dataclasses import dataclass, fields

from quamba.errors import RecipeError
from quamba.observers.clipping import MINMAX, Clipping, ObserverKind

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
        self.clipping_for(_SMALL_D_MODEL)

    def clipping_for(self, d_model: int) -> Clipping:
        """How tensors are clipped that a percentile observer watches."""
        alpha = self.percentile_alpha
        if self.observer == "minmax":
            return MINMAX
        if alpha is None:
            alpha = 0.99999 if d_model <= _SMALL_D_MODEL else 0.9995
        return Clipping(self.observer, alpha)

    def facts(self) -> dict[str, int | float | str | None]:
        """The fields as plain values."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


__all__ = ["Recipe"]
