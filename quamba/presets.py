"""Recipes that have a name (algorithm 6.2), as rows of a table.

name           embedding, head   W   A        GPTQ  head groups
quamba1        float             8   8        no    no             one scale for each weight, as in the first paper
quamba2-w8a8   8 bits            8   8        no    on Mamba-2
quamba2-w4a8   4 bits            4   8        yes   on Mamba-2
quamba2-w4a16  4 bits            4   16       yes   no
quamba2-w4ax   4 bits, W4A8      4   8 or 16  yes   on Mamba-2     needs a choice for each layer
"""

from collections.abc import Mapping
from dataclasses import dataclass

from quamba.errors import RecipeError
from quamba.flow.recipe import Recipe
from quamba.models.config import Family
from quamba.observers.clipping import ObserverKind


@dataclass(frozen=True, slots=True)
class Preset:
    """What a name stands for. Fields are those of `Recipe`.

    Attributes:
        groups_mamba2: head groups where the model has heads.
        is_hybrid: each layer's activations are chosen apart.
    """

    w_bits: int
    a_bits: int
    apply_gptq: bool
    quantize_embedding: bool
    quantize_lm_head: bool
    groups_mamba2: bool
    per_tensor_weights: bool = False
    is_hybrid: bool = False

    def recipe(
        self,
        family: Family,
        *,
        percentile_alpha: float | None = None,
        observer: ObserverKind | None = None,
        rotate: bool = True,
        hybrid: tuple[str, ...] | None = None,
    ) -> Recipe:
        """The recipe for a model of this family.

        Raises:
            RecipeError: it lacks the choice for each layer, or has one that it has no use for.
        """
        if self.is_hybrid != (hybrid is not None):
            raise RecipeError(
                "a hybrid preset needs a choice of W4A8 or W4A16 for each layer"
                if self.is_hybrid
                else "only a hybrid preset has a choice for each layer; use quamba2-w4ax"
            )
        return Recipe(
            w_bits=self.w_bits,
            a_bits=self.a_bits,
            percentile_alpha=percentile_alpha,
            observer=observer,
            rotate=rotate,
            group_heads=self.groups_mamba2 and family == "mamba2",
            apply_gptq=self.apply_gptq,
            quantize_embedding=self.quantize_embedding,
            quantize_lm_head=self.quantize_lm_head,
            per_tensor_weights=self.per_tensor_weights,
            hybrid=hybrid,
        )


PRESETS: Mapping[str, Preset] = {
    "quamba1": Preset(8, 8, False, False, False, False, per_tensor_weights=True),
    "quamba2-w8a8": Preset(8, 8, False, True, True, True),
    "quamba2-w4a8": Preset(4, 8, True, True, True, True),
    "quamba2-w4a16": Preset(4, 16, True, True, True, False),
    "quamba2-w4ax": Preset(4, 8, True, True, True, True, is_hybrid=True),
}


def preset(name: str) -> Preset:
    """The preset of this name.

    Raises:
        RecipeError: there is none.
    """
    if name not in PRESETS:
        raise RecipeError(f"no preset {name!r}; use one of {', '.join(PRESETS)}")
    return PRESETS[name]


__all__ = ["PRESETS", "Preset", "preset"]
