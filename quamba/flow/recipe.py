"""What is asked of a quantization, as a value that cannot hold an impossible combination."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from quamba.errors import RecipeError
from quamba.granularity import SCHEMES, PerTensor, WeightScheme
from quamba.models.config import ModelConfig
from quamba.observers.clipping import MINMAX, Clipping, ObserverKind

# Up to this width models lose by clipping more than a few elements in a hundred thousand.
_SMALL_D_MODEL = 768
# What a hybrid's layers can be.
HYBRID_SCHEMES = ("W4A8", "W4A16")
# What "auto" chooses from; below the first, clipping costs more than it brings in every model that was looked at.
AUTO_ALPHAS = (0.999, 0.9995, 0.9999, 0.99995, 0.99999, 1.0)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A quantization recipe.

    Attributes:
        w_bits: bits of the weights: 8 or 4.
        a_bits: bits of the activations: 8, or 16 for activations that stay float (with 4-bit weights).
        percentile_alpha: in (0, 1]; None: the default for the model's size, with head groups the absolute maximum;
            "auto": for each tensor the one of `AUTO_ALPHAS` with the least quantization error.
        observer: how the percentile is taken; None: "ema", and with head groups "exact", since which channels share a
            group is known only after the sweep.
        rotate: Hadamard rotation of the residual stream and of what each out_proj reads.
        group_heads: reorder heads and channels of Mamba-2, with a scale for each of 16 groups.
        apply_gptq: solve for the weights of in_proj, out_proj and a quantized head with GPTQ.
        act_order: GPTQ takes the input channels with the largest activations first.
        quantize_embedding: to the weights' bits.
        quantize_lm_head: to the scheme of the layers, in a hybrid W4A8.
        per_tensor_weights: one scale for each weight (Quamba's first paper) where there is one a channel.
        hybrid: "W4A8" or "W4A16" for each layer; None: all alike.

    Raises:
        RecipeError: a value or combination that cannot be built; says what can.
    """

    w_bits: int = 8
    a_bits: int = 8
    percentile_alpha: float | Literal["auto"] | None = None
    observer: ObserverKind | None = None
    rotate: bool = True
    group_heads: bool = False
    apply_gptq: bool = False
    act_order: bool = False
    quantize_embedding: bool = False
    quantize_lm_head: bool = False
    per_tensor_weights: bool = False
    hybrid: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "observer", self.observer_kind)
        scheme = WeightScheme.of(self.w_bits, self.a_bits)
        self.clippings_for(_SMALL_D_MODEL)
        if self.act_order and not self.apply_gptq:
            raise RecipeError("act_order is the order in which GPTQ rounds; use it with apply_gptq")
        if self.percentile_alpha == "auto" and self.observer == "minmax":
            raise RecipeError("the minmax observer clips nothing, so there is no alpha to look for; use ema or exact")
        if self.per_tensor_weights and scheme.num_bits != 8:
            raise RecipeError(f"one scale for each weight cannot be built for {scheme.name}; use w_bits 8")
        if self.group_heads and self.hybrid is None and scheme.activation_bits != 8:
            raise RecipeError(f"group_heads groups 8-bit activations, and {scheme.name} has none; use a_bits 8")
        if self.group_heads and self.observer == "ema" and self.percentile_alpha not in (None, 1.0):
            raise RecipeError(
                "an ema of percentiles is not taken for each head group: leave observer out or use exact, "
                "or use percentile_alpha 1.0"
            )
        if self.hybrid is not None:
            if self.w_bits != 4:
                raise RecipeError(f"a hybrid has 4-bit weights, not w_bits {self.w_bits}; use w_bits 4")
            for layer, name in enumerate(self.hybrid):
                if name not in HYBRID_SCHEMES:
                    raise RecipeError(f"layer {layer} of the hybrid is {name!r}; use {' or '.join(HYBRID_SCHEMES)}")

    @property
    def observer_kind(self) -> ObserverKind:
        """How the percentile is taken, the default settled."""
        return self.observer or ("exact" if self.group_heads else "ema")

    def check(self, config: ModelConfig) -> None:
        """Whether a model of this structure can be quantized so.

        Raises:
            RecipeError: it cannot; says why.
        """
        if self.group_heads and config.family != "mamba2":
            raise RecipeError("group_heads needs a Mamba-2 model: Mamba-1 has no heads, each channel scans for itself")
        if self.hybrid is not None and len(self.hybrid) != config.n_layer:
            raise RecipeError(f"the hybrid names {len(self.hybrid)} layers, the model has {config.n_layer}")

    def clippings_for(self, d_model: int) -> tuple[Clipping, ...]:
        """How tensors can be clipped that a percentile observer watches: one way, or those to choose from."""
        alpha = self.percentile_alpha
        if self.observer == "minmax" or (alpha is None and self.group_heads):
            return (MINMAX,)
        if alpha == "auto":
            return tuple(Clipping(self.observer_kind, candidate) for candidate in AUTO_ALPHAS)
        if alpha is None:
            alpha = 0.99999 if d_model <= _SMALL_D_MODEL else 0.9995
        return (Clipping(self.observer_kind, alpha),)

    def scheme(self, layer: int) -> WeightScheme:
        """Of a layer's projections."""
        if self.hybrid is not None:
            return SCHEMES[self.hybrid[layer]]
        return self._scheme()

    def _scheme(self) -> WeightScheme:
        if self.per_tensor_weights:
            return WeightScheme(self.w_bits, PerTensor(), self.a_bits)
        return WeightScheme.of(self.w_bits, self.a_bits)

    @property
    def head_scheme(self) -> WeightScheme | None:
        """Of the head; None: it stays float."""
        if not self.quantize_lm_head:
            return None
        return SCHEMES["W4A8"] if self.hybrid is not None else self._scheme()

    def facts(self) -> dict[str, Any]:
        """The fields as plain values."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> "Recipe":
        """The inverse of `facts`, also after a passage through JSON.

        Raises:
            RecipeError: they describe no recipe.
        """
        hybrid = facts.get("hybrid")
        try:
            return cls(**{**facts, "hybrid": None if hybrid is None else tuple(hybrid)})
        except TypeError as error:
            raise RecipeError(f"the stored recipe is damaged ({error}); quantize the model again") from None


__all__ = ["AUTO_ALPHAS", "HYBRID_SCHEMES", "Recipe"]
