"""What an experiment does, as a value; `quantizer.config_reader` makes it of options."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from quamba.flow.recipe import Recipe
from quamba.observers.clipping import ObserverKind
from quantizer.layers import LayerSelection

SEED = 1234
TESTING_WINDOWS = 8
# An alpha as it was given; None: the default, "auto": for each tensor the one that loses least.
Alpha = float | Literal["auto"] | None


@dataclass(frozen=True, slots=True)
class RunConfig:
    """One experiment. Fields are named as the options; `None` is "not given" where an option has no default.

    Attributes:
        model: as the user gave it.
        model_path: where it is read from.
        calib_data: as the user gave it; "" means: pile for a model from a hub, else builtin.
        calib_path, ppl_paths: the same, with files where they are read from.
        calib_data_num, limit: as --testing leaves them.
        observer: "": ema, with head groups exact.
        group_heads: None: where the model has heads (a preset's way).
        hybrid_path, hybrid: the file that chooses for each layer, and what it says once it is read.
        sweep: the alphas that were asked for; `percentile_alpha` is the one of this experiment.
        artifacts: the directory that quantized models are kept in; "": they are not kept.
        stored: the model was quantized and saved before; `w_bits` and so on are then what it was quantized with.
    """

    model: str
    model_path: str
    device: str
    dtype: str
    quantize: bool
    w_bits: int
    a_bits: int
    percentile_alpha: Alpha
    observer: str
    rotation: str
    preset: str
    group_heads: bool | None
    apply_gptq: bool
    act_order: bool
    quantize_embedding: bool
    quantize_lm_head: bool
    per_tensor_weights: bool
    hybrid_path: str
    hybrid: tuple[str, ...] | None
    calib_data: str
    calib_path: str
    calib_data_num: int
    calib_seqlen: int
    batch_size: int | None
    shuffle_seed: int | None
    stats_layers: LayerSelection
    eval_zero_shot: bool
    eval_few_shot: bool
    fewshot: int
    eval_generation: bool
    eval_ppl: bool
    ppl_datasets: tuple[str, ...]
    ppl_paths: tuple[str, ...]
    tasks: tuple[str, ...]
    limit: int | None
    eval_baseline: bool
    testing: bool
    verbose: bool
    sweep: tuple[Alpha, ...] = (None,)
    artifacts: str = ""
    stored: bool = False

    def experiments(self) -> "tuple[RunConfig, ...]":
        """One for each alpha that was asked for."""
        return tuple(replace(self, percentile_alpha=alpha) for alpha in self.sweep)

    @property
    def quantized(self) -> bool:
        """Whether what is evaluated in the end is quantized, now or before."""
        return self.quantize or self.stored

    @property
    def shots(self) -> tuple[int, ...]:
        """How many examples the tasks are evaluated with, each number once; none: they are not evaluated."""
        asked = ((self.eval_zero_shot, 0), (self.eval_few_shot, self.fewshot), (self.eval_generation, self.fewshot))
        return tuple(dict.fromkeys(count for wanted, count in asked if wanted))

    @property
    def max_windows(self) -> int | None:
        """The most windows of a perplexity data set; None: all."""
        return TESTING_WINDOWS if self.testing else None

    def recipe(self) -> Recipe:
        """What the library is asked for.

        Raises:
            RecipeError: it cannot be built; says what can.
        """
        return Recipe(
            w_bits=self.w_bits,
            a_bits=self.a_bits,
            percentile_alpha=self.percentile_alpha,
            observer=_kind(self.observer) if self.observer else None,
            rotate=self.rotation == "hadamard",
            group_heads=bool(self.group_heads),
            apply_gptq=self.apply_gptq,
            act_order=self.act_order,
            quantize_embedding=self.quantize_embedding,
            quantize_lm_head=self.quantize_lm_head,
            per_tensor_weights=self.per_tensor_weights,
            hybrid=self.hybrid,
        )

    def record(self) -> dict[str, Any]:
        """The record's `config`: the fixed keys first, then every other option that changes a result."""
        return {
            "model": self.model,
            "w_bits": self.w_bits if self.quantized else 16,
            "a_bits": self.a_bits if self.quantized else 16,
            "percentile_alpha": None if self.percentile_alpha == "auto" else self.percentile_alpha,
            "group_heads": bool(self.group_heads),
            "apply_gptq": self.apply_gptq,
            "quantize_embedding": self.quantize_embedding,
            "quantize_lm_head": self.quantize_lm_head,
            "calib_data_num": self.calib_data_num,
            "calib_seqlen": self.calib_seqlen,
            "quantize": self.quantize,
            "alpha_search": "auto" if self.percentile_alpha == "auto" else None,
            "preset": self.preset or None,
            "stored": self.stored,
            "rotation": self.rotation if self.quantized else None,
            "act_order": self.act_order,
            "per_tensor_weights": self.per_tensor_weights,
            "hybrid_blocks": None if self.hybrid is None else list(self.hybrid),
            "observer": self.recipe().observer_kind if self.quantized else None,
            "calib_data": self.calib_data if self.quantize else None,
            "shuffle_seed": self.shuffle_seed,
            "stats_layers": self.stats_layers.text,
            "batch_size": self.batch_size,
            "device": self.device,
            "dtype": self.dtype if self.eval_baseline or not self.quantized else None,
            "task_list": list(self.tasks) if self.shots else [],
            "eval_zero_shot": self.eval_zero_shot,
            "eval_few_shot": self.eval_few_shot,
            "eval_generation": self.eval_generation,
            "fewshot": self.fewshot,
            "limit": self.limit,
            "ppl_dataset": list(self.ppl_datasets) if self.eval_ppl else [],
            "eval_baseline": self.eval_baseline,
            "testing": self.testing,
            "seed": SEED,
        }


def _kind(name: str) -> ObserverKind:
    """The name as the library's literal type."""
    kinds: dict[str, ObserverKind] = {"ema": "ema", "exact": "exact", "minmax": "minmax"}
    return kinds[name]


__all__ = ["SEED", "Alpha", "RunConfig"]
