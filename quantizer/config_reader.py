"""From options to the experiment that they ask for: complete, or refused with every reason.

Nothing here looks at the machine: whether models, files, tasks and devices are there is `quantizer.surroundings`'.
"""

import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from quamba.errors import RecipeError
from quamba.presets import PRESETS, Preset
from quantizer.config import Alpha, RunConfig
from quantizer.errors import SpecError, Violation
from quantizer.layers import LayerSelection

DTYPES = ("float32", "bfloat16", "float16")
OBSERVERS = ("ema", "exact", "minmax")
ROTATIONS = ("hadamard", "none")
# What a preset decides.
_PRESET_FIELDS = (
    "w_bits",
    "a_bits",
    "group_heads",
    "apply_gptq",
    "quantize_embedding",
    "quantize_lm_head",
    "hybrid_blocks",
)
TESTING_DOCUMENTS, TESTING_CALIBRATION = 100, 16
_MOST_TEXT = 4096
_MOST_ITEMS = 64


def read_config(options: Mapping[str, Any], defaults: Mapping[str, str]) -> RunConfig:
    """The experiment that options ask for.

    Args:
        options: by the names of ExperimentSpec's fields; complete, None where neither given nor defaulted.
        defaults: of the options that have one, as one types them.

    Raises:
        SpecError: one or more options cannot be done as asked.
    """
    return _Reader(options, defaults).read()


class _Reader:
    """Collects what is wrong, so that the user hears all of it at once."""

    def __init__(self, options: Mapping[str, Any], defaults: Mapping[str, str]) -> None:
        self._options = options
        self._defaults = defaults
        self._violations: list[Violation] = []

    def _wrong(self, field: str, message: str) -> None:
        self._violations.append(Violation(field, message))

    def _text(self, field: str) -> str:
        value = str(self._options[field])
        if len(value) > _MOST_TEXT or not value.isprintable():
            self._wrong(field, f"{field} must be printable text of at most {_MOST_TEXT} characters")
            return ""
        return value.strip()

    def _at_least(self, field: str, least: int) -> int:
        value = int(self._options[field])
        if value < least:
            self._wrong(field, f"{field} must be at least {least}, not {value}")
        return value

    def _names(self, field: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(name.strip() for name in self._text(field).split(",") if name.strip()))
        if not names:
            self._wrong(field, f"{field} is empty: name at least one, or leave --{field} out")
        if len(names) > _MOST_ITEMS:
            self._wrong(field, f"{field} names {len(names)}: at most {_MOST_ITEMS}")
        return names

    def read(self) -> RunConfig:
        """See `read_config`."""
        options = self._options
        model = self._text("model")
        if not model:
            self._wrong("model", "no model: give a directory with config.json and weights, or a hub id")
        preset, testing = self._preset(), bool(options["testing"])
        quantize = bool(options["quantize"]) or preset is not None
        calib_data_num = self._at_least("calib_data_num", 1)
        limit = None if options["limit"] is None else self._at_least("limit", 1)
        data_sets, alphas = self._names("ppl_dataset"), self._alphas()
        config = RunConfig(
            model=model,
            model_path=model,
            device=self._text("device"),
            dtype=self._choice("dtype", DTYPES),
            quantize=quantize,
            w_bits=preset.w_bits if preset else self._bits("w_bits", (4, 8)),
            a_bits=preset.a_bits if preset else self._bits("a_bits", (8, 16)),
            percentile_alpha=alphas[0],
            observer=self._choice("observer", OBSERVERS) if self._given("observer") else "",
            rotation=self._choice("rotation", ROTATIONS),
            preset=self._text("preset"),
            group_heads=(preset.groups_mamba2 and None) if preset else bool(options["group_heads"]),
            apply_gptq=preset.apply_gptq if preset else bool(options["apply_gptq"]),
            act_order=bool(options["act_order"]),
            quantize_embedding=preset.quantize_embedding if preset else bool(options["quantize_embedding"]),
            quantize_lm_head=preset.quantize_lm_head if preset else bool(options["quantize_lm_head"]),
            per_tensor_weights=preset.per_tensor_weights if preset else False,
            hybrid_path=self._hybrid_path(preset),
            hybrid=None,
            calib_data=self._text("calib_data"),
            calib_path=self._text("calib_data"),
            calib_data_num=min(calib_data_num, TESTING_CALIBRATION) if testing else calib_data_num,
            calib_seqlen=self._at_least("calib_seqlen", 1),
            batch_size=None if options["batch_size"] is None else self._at_least("batch_size", 1),
            shuffle_seed=options["shuffle_seed"],
            stats_layers=self._stats_layers(),
            eval_zero_shot=bool(options["eval_zero_shot"]),
            eval_few_shot=bool(options["eval_few_shot"]),
            fewshot=self._at_least("fewshot", 0),
            eval_generation=bool(options["eval_generation"]),
            eval_ppl=bool(options["eval_ppl"]),
            ppl_datasets=data_sets,
            ppl_paths=data_sets,
            tasks=self._names("task_list"),
            limit=min(limit or TESTING_DOCUMENTS, TESTING_DOCUMENTS) if testing else limit,
            eval_baseline=bool(options["eval_baseline"]),
            testing=testing,
            verbose=bool(options["verbose"]),
            sweep=alphas,
            artifacts=self._artifacts(),
        )
        self._check_device(config.device)
        self._check_together(config)
        if self._violations:
            raise SpecError(tuple(self._violations))
        return config

    def _bits(self, field: str, possible: tuple[int, ...]) -> int:
        value = int(self._options[field])
        if value not in possible:
            self._wrong(field, f"{field} must be {' or '.join(map(str, possible))}, not {value}")
            return 8
        return value

    def _alphas(self) -> tuple[Alpha, ...]:
        text = self._text("percentile_alpha")
        if text.lower() in ("", "none", "null"):
            return (None,)
        parts = [part.strip() for part in text.split(",")]
        if len(parts) > _MOST_ITEMS:
            self._wrong("percentile_alpha", f"percentile_alpha has {len(parts)} values: at most {_MOST_ITEMS}")
            return (None,)
        return tuple(dict.fromkeys(self._alpha(part) for part in parts))

    def _alpha(self, text: str) -> Alpha:
        if text.lower() == "auto":
            return "auto"
        try:
            alpha = float(text)
        except ValueError:
            self._wrong(
                "percentile_alpha",
                f"percentile_alpha must be a number in (0, 1], several separated by commas, or auto, not {text!r}",
            )
            return None
        if not (math.isfinite(alpha) and 0.0 < alpha <= 1.0):
            self._wrong("percentile_alpha", f"percentile_alpha must be in (0, 1], not {text}; 1.0 clips nothing")
            return None
        return alpha

    def _artifacts(self) -> str:
        folder, below = self._text("pretrained_dir"), self._text("output_subdir")
        if below and not folder:
            self._wrong("output_subdir", "--output_subdir is a directory below --pretrained_dir: give that too")
        if below and (PurePath(below).is_absolute() or ".." in PurePath(below).parts):
            self._wrong("output_subdir", f"output_subdir {below!r} must be a relative path without '..'")
            return folder
        return str(PurePath(folder, below)) if folder else ""

    def _choice(self, field: str, choices: tuple[str, ...]) -> str:
        value = self._text(field)
        if value not in choices:
            self._wrong(field, f"{field} must be one of {', '.join(choices)}, not {value!r}")
            return choices[0]
        return value

    def _preset(self) -> Preset | None:
        name = self._text("preset")
        if not name:
            return None
        if name not in PRESETS:
            self._wrong("preset", f"no preset {name!r}; use one of {', '.join(PRESETS)}")
            return None
        for field in _PRESET_FIELDS:
            if self._given(field):
                self._wrong(field, f"--{field} is what --preset {name} decides: leave one of the two out")
        return PRESETS[name]

    def _hybrid_path(self, preset: Preset | None) -> str:
        path, wanted = self._text("hybrid_blocks_config"), bool(self._options["hybrid_blocks"])
        wanted = wanted or (preset is not None and preset.is_hybrid)
        if wanted and not path:
            self._wrong(
                "hybrid_blocks_config",
                "a hybrid needs --hybrid_blocks_config FILE, a JSON array with W4A8 or W4A16 for each layer",
            )
        if path and not wanted:
            self._wrong("hybrid_blocks_config", "--hybrid_blocks_config has no effect without --hybrid_blocks: add it")
        return path

    def _given(self, field: str) -> bool:
        value, default = self._options[field], self._defaults.get(field, "")
        text = str(value).strip().lower()
        # "None" is how one writes that there is no number; of a choice it is one.
        return value not in (None, False, "") and text != default and (text != "none" or field == "rotation")

    def _stats_layers(self) -> LayerSelection:
        text = self._text("stats_layers")
        try:
            return LayerSelection.parse(text)
        except ValueError as error:
            self._wrong(
                "stats_layers", f"stats_layers {text!r}: {error}; give a count, 'all', or a list such as 0,5,10-12"
            )
            return LayerSelection(text)

    def _check_device(self, device: str) -> None:
        kind, colon, index = device.partition(":")
        plain = device in ("auto", "cpu", "cuda")
        if not plain and not (kind == "cuda" and colon and index.isascii() and index.isdecimal()):
            self._wrong("device", f"device must be auto, cpu, cuda or cuda:N, not {device!r}")

    def _check_together(self, config: RunConfig) -> None:
        if config.eval_few_shot and config.fewshot == 0:
            self._wrong("fewshot", "--eval_few_shot needs --fewshot of at least 1; for none use --eval_zero_shot")
        if config.fewshot > 0 and not (config.eval_few_shot or config.eval_generation):
            self._wrong("fewshot", f"--fewshot {config.fewshot} needs --eval_few_shot or --eval_generation")
        evaluates = bool(config.shots) or config.eval_ppl
        if not config.quantize and not evaluates:
            self._wrong(
                "quantize", "nothing to do: give --quantize, or an evaluation such as --eval_zero_shot or --eval_ppl"
            )
        if config.eval_baseline and not evaluates:
            self._wrong("eval_baseline", "--eval_baseline needs an evaluation such as --eval_zero_shot or --eval_ppl")
        if config.eval_baseline and not config.quantize:
            self._wrong("eval_baseline", "--eval_baseline compares with the quantized model: give --quantize too")
        self._needs("task_list", bool(config.shots), "--eval_zero_shot, --eval_few_shot or --eval_generation")
        self._needs("limit", bool(config.shots), "--eval_zero_shot, --eval_few_shot or --eval_generation")
        self._needs("ppl_dataset", config.eval_ppl, "--eval_ppl")
        for field in (
            "percentile_alpha",
            "observer",
            "rotation",
            "calib_data",
            "shuffle_seed",
            "act_order",
            *_PRESET_FIELDS,
        ):
            self._needs(field, config.quantize, "--quantize")
        self._needs("pretrained_dir", config.quantize, "--quantize")
        self._needs("act_order", config.apply_gptq, "--apply_gptq")
        self._needs("dtype", config.eval_baseline or not config.quantize, "--eval_baseline")
        for experiment in config.experiments() if config.quantize and not self._violations else ():
            try:
                experiment.recipe()
            except RecipeError as error:
                asked = (*_PRESET_FIELDS, "percentile_alpha", "observer")
                self._wrong(next((field for field in asked if self._given(field)), "quantize"), str(error))
                break

    def _needs(self, field: str, present: bool, what: str) -> None:
        """An option that would do nothing is refused, not ignored."""
        value = self._options[field]
        if self._given(field) and not present and not any(violation.field == field for violation in self._violations):
            self._wrong(field, f"--{field} {value} has no effect without {what}: add it, or leave --{field} out")


__all__ = ["read_config"]
