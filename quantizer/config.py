"""What an experiment does, as a value: read from a specification and complete, or refused with every reason.

Nothing here looks at the machine: whether models, files, tasks and devices are there is `quantizer.surroundings`'.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quantizer.errors import SpecError, Violation
from quantizer.layers import LayerSelection

SEED = 1234
TESTING_DOCUMENTS, TESTING_CALIBRATION, TESTING_WINDOWS = 100, 16, 8
OBSERVERS = ("ema", "exact", "minmax")
_MOST_TEXT = 4096
_MOST_ITEMS = 64


@dataclass(frozen=True, slots=True)
class RunConfig:
    """One experiment. Fields are named as the options; `None` is "not given" where an option has no default.

    Attributes:
        model: as the user gave it.
        model_path: where it is read from.
        calib_data: as the user gave it; "" means: pile for a model from a hub, else builtin.
        calib_path, ppl_paths: the same, with files where they are read from.
        calib_data_num, limit: as --testing leaves them.
    """

    model: str
    model_path: str
    device: str
    quantize: bool
    w_bits: int
    a_bits: int
    percentile_alpha: float | None
    observer: str
    calib_data: str
    calib_path: str
    calib_data_num: int
    calib_seqlen: int
    batch_size: int
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

    @property
    def shots(self) -> tuple[int, ...]:
        """How many examples the tasks are evaluated with, each number once; none: they are not evaluated."""
        asked = ((self.eval_zero_shot, 0), (self.eval_few_shot, self.fewshot), (self.eval_generation, self.fewshot))
        return tuple(dict.fromkeys(count for wanted, count in asked if wanted))

    @property
    def max_windows(self) -> int | None:
        """The most windows of a perplexity data set; None: all."""
        return TESTING_WINDOWS if self.testing else None

    def record(self) -> dict[str, Any]:
        """The record's `config`: the fixed keys first, then every other option that changes a result."""
        return {
            "model": self.model,
            "w_bits": self.w_bits if self.quantize else 16,
            "a_bits": self.a_bits if self.quantize else 16,
            "percentile_alpha": self.percentile_alpha,
            "group_heads": False,
            "apply_gptq": False,
            "quantize_embedding": False,
            "quantize_lm_head": False,
            "calib_data_num": self.calib_data_num,
            "calib_seqlen": self.calib_seqlen,
            "quantize": self.quantize,
            "observer": self.observer if self.quantize else None,
            "calib_data": self.calib_data if self.quantize else None,
            "shuffle_seed": self.shuffle_seed,
            "stats_layers": self.stats_layers.text,
            "batch_size": self.batch_size,
            "device": self.device,
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
        self._refuse_what_is_planned()
        quantize, testing = bool(options["quantize"]), bool(options["testing"])
        calib_data_num = self._at_least("calib_data_num", 1)
        limit = None if options["limit"] is None else self._at_least("limit", 1)
        data_sets = self._names("ppl_dataset")
        config = RunConfig(
            model=model,
            model_path=model,
            device=self._text("device"),
            quantize=quantize,
            w_bits=self._bits("w_bits", quantize),
            a_bits=self._bits("a_bits", quantize),
            percentile_alpha=self._alpha(),
            observer=self._observer(),
            calib_data=self._text("calib_data"),
            calib_path=self._text("calib_data"),
            calib_data_num=min(calib_data_num, TESTING_CALIBRATION) if testing else calib_data_num,
            calib_seqlen=self._at_least("calib_seqlen", 1),
            batch_size=self._at_least("batch_size", 1),
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
        )
        self._check_device(config.device)
        self._check_together(config)
        if self._violations:
            raise SpecError(tuple(self._violations))
        return config

    def _bits(self, field: str, quantize: bool) -> int:
        value = int(self._options[field])
        if value == 8 or (value == 16 and not quantize):
            return value
        kept = ", or leave --quantize out to keep the model as it is" if value == 16 else ""
        planned = {"w_bits": (4, 16), "a_bits": (16,)}[field]
        if value in planned:
            self._wrong(field, f"{field} {value} is not supported yet: use {field} 8{kept}")
        else:
            self._wrong(field, f"{field} must be 8 ({' and '.join(map(str, planned))} planned), not {value}")
        return 8

    def _alpha(self) -> float | None:
        text = self._text("percentile_alpha")
        if text.lower() in ("", "none", "null"):
            return None
        if "," in text or text.lower() == "auto":
            self._wrong(
                "percentile_alpha",
                f"percentile_alpha {text}: several alphas, or a search for one, are not supported yet; give one number",
            )
            return None
        try:
            alpha = float(text)
        except ValueError:
            self._wrong("percentile_alpha", f"percentile_alpha must be a number in (0, 1], not {text!r}")
            return None
        if not (math.isfinite(alpha) and 0.0 < alpha <= 1.0):
            self._wrong("percentile_alpha", f"percentile_alpha must be in (0, 1], not {text}; 1.0 clips nothing")
            return None
        return alpha

    def _observer(self) -> str:
        observer = self._text("observer")
        if observer not in OBSERVERS:
            self._wrong("observer", f"observer must be one of {', '.join(OBSERVERS)}, not {observer!r}")
        return observer

    def _stats_layers(self) -> LayerSelection:
        text = self._text("stats_layers")
        try:
            return LayerSelection.parse(text)
        except ValueError as error:
            self._wrong(
                "stats_layers", f"stats_layers {text!r}: {error}; give a count, 'all', or a list such as 0,5,10-12"
            )
            return LayerSelection(text)

    def _refuse_what_is_planned(self) -> None:
        flags = {
            "group_heads": "head grouping",
            "apply_gptq": "GPTQ",
            "quantize_embedding": "quantizing the embedding",
            "quantize_lm_head": "quantizing the head",
            "hybrid_blocks": "choosing bits for each layer",
        }
        for field, what in flags.items():
            if self._options[field]:
                self._wrong(field, f"{what} is not supported yet: leave --{field} out")
        paths = {
            "hybrid_blocks_config": "choosing bits for each layer",
            "pretrained_dir": "saving quantized models",
            "output_subdir": "saving quantized models",
        }
        for field, what in paths.items():
            if self._text(field):
                self._wrong(field, f"{what} is not supported yet: leave --{field} out")

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
        for field in ("percentile_alpha", "observer", "calib_data", "shuffle_seed"):
            self._needs(field, config.quantize, "--quantize")

    def _needs(self, field: str, present: bool, what: str) -> None:
        """An option that would do nothing is refused, not ignored."""
        value = self._options[field]
        given = value is not None and str(value).strip().lower() not in ("none", self._defaults.get(field, ""))
        if given and not present and not any(violation.field == field for violation in self._violations):
            self._wrong(field, f"--{field} {value} has no effect without {what}: add it, or leave --{field} out")


__all__ = ["SEED", "RunConfig", "read_config"]
