"""Experiments side by side: their records in, aligned rows out. Nothing here knows of files or the wire.

Every row has one cell for each experiment, in the order given; differences are to the first.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from qlog.v1.records import stderr_key

from collector.records import Json, Record, double_from_json, is_stderr, metrics_of

# Metrics between 0 and 1, of which more is better; their differences are given in points (hundredths).
_FRACTIONS = re.compile(
    r"accuracy|acc([_-].*)?|exact_match|em|exact|f1|f1_.*|.*_f1|mc[12]|pass@\d+|pass_at_\d+|precision|recall"
)
_CONFIG_PARTS = ("environment", "model", "calibration")
# In this order, after the keys without such a prefix.
_CONFIG_GROUPS = ("reorder_summary.", *(f"{part}." for part in _CONFIG_PARTS))
_SIZES = "model_size_bytes."
_METRIC_GROUPS = ("tasks.", "ppl.", "fp16.", "reorder_summary.", _SIZES, "duration_s")


class Unit(Enum):
    """What a metric counts."""

    FRACTION = auto()  # of 1
    BYTES = auto()
    PLAIN = auto()


@dataclass(frozen=True, slots=True)
class ConfigRow:
    """One key of the configuration. `values`: (value,) where an experiment has the key, else ()."""

    key: str
    values: tuple[tuple[Json, ...], ...]
    differs: bool


@dataclass(frozen=True, slots=True)
class MetricCell:
    """One experiment's value of a metric, with its difference to the first one's.

    Attributes:
        value, stderr: as recorded; None where not known.
        difference, difference_stderr: in points for a fraction, else in the metric's own unit.
        exceeds_stderr: |difference| > difference_stderr; None where either is not known.
    """

    value: float | None = None
    stderr: float | None = None
    difference: float | None = None
    difference_stderr: float | None = None
    exceeds_stderr: bool | None = None


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric."""

    name: str
    unit: Unit
    cells: tuple[MetricCell, ...]
    differs: bool


@dataclass(frozen=True, slots=True)
class TensorRow:
    """One tensor. `stats`: its objects in the records; None where an experiment has no such tensor."""

    name: str
    stats: tuple[dict[str, Json] | None, ...]
    differs: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows."""

    config: tuple[ConfigRow, ...]
    results: tuple[MetricRow, ...]
    tensors: tuple[TensorRow, ...]


def compare(records: Sequence[Record]) -> Comparison:
    """Align the records of two or more experiments."""
    config = [_config_values(record) for record in records]
    metrics = [_metrics(record) for record in records]
    tensors = [_tensors(record) for record in records]
    return Comparison(
        tuple(_config_row(key, [values.get(key, ()) for values in config]) for key in _union(config, _CONFIG_GROUPS)),
        tuple(_metric_row(name, [values.get(name) for values in metrics]) for name in _union(metrics, _METRIC_GROUPS)),
        tuple(
            _tensor_row(name, [stats.get(name) for stats in tensors])
            for name in sorted(_union(tensors), key=natural_key)
        ),
    )


def natural_key(name: str) -> tuple[tuple[str, int, str], ...]:
    """A sort key by which layer_2 comes before layer_10."""
    parts = re.split(r"([0-9]+)", name)
    texts, numbers = parts[::2], [*parts[1::2], ""]
    return tuple(
        (text, len(digits.lstrip("0")), digits.lstrip("0")) for text, digits in zip(texts, numbers, strict=True)
    )


def _union(tables: Iterable[Mapping[str, object]], groups: Sequence[str] = ()) -> list[str]:
    """All keys: those with none of the prefixes, then those with each; within these in the order of the tables."""
    keys = dict.fromkeys(key for table in tables for key in table)

    def group(key: str) -> int:
        return next((place for place, prefix in enumerate(groups) if key.startswith(prefix)), -1)

    return sorted(keys, key=group)


# --- configuration ---


def _config_values(record: Record) -> dict[str, tuple[Json, ...]]:
    values: dict[str, tuple[Json, ...]] = {}
    _flatten(record.get("config"), "", values)
    reorder = record.get("reorder_summary")
    if isinstance(reorder, dict) and "enabled" in reorder:
        values["reorder_summary.enabled"] = (reorder["enabled"],)
    for part in _CONFIG_PARTS:
        _flatten(record.get(part), f"{part}.", values)
    return values


def _flatten(value: Json, prefix: str, values: dict[str, tuple[Json, ...]]) -> None:
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        if isinstance(item, dict) and item:
            _flatten(item, f"{prefix}{key}.", values)
        else:
            values[prefix + key] = (item,)


def _config_row(key: str, values: Sequence[tuple[Json, ...]]) -> ConfigRow:
    # Not there and null mean the same: not given.
    given = [value[0] if value else None for value in values]
    return ConfigRow(key, tuple(values), any(not same(value, given[0]) for value in given[1:]))


def same(left: Json, right: Json) -> bool:
    """Whether two JSON values are equal; 1 and 1.0 are, 1 and true are not."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


# --- metrics ---


def _metrics(record: Record) -> dict[str, tuple[float, float | None]]:
    """(value, standard error) of every metric of a record, by name."""
    found: dict[str, tuple[float, float | None]] = {}
    _result_metrics(record.get("results"), "", found)
    reorder = record.get("reorder_summary")
    if isinstance(reorder, dict):
        for key, item in reorder.items():
            _add(found, f"reorder_summary.{key}", item)
    sizes = record.get("model_size_bytes")
    if isinstance(sizes, dict):
        for key, item in sizes.items():
            _add(found, _SIZES + key, item)
    _add(found, "duration_s", record.get("duration_s"))
    return found


def _add(found: dict[str, tuple[float, float | None]], name: str, value: Json, stderr: float | None = None) -> None:
    number = double_from_json(value)
    if number is not None:
        found[name] = (number, stderr)


def _result_metrics(results: Json, prefix: str, found: dict[str, tuple[float, float | None]]) -> None:
    if not isinstance(results, dict):
        return
    tasks: dict[str, tuple[float, float | None]] = {}
    recorded = results.get("tasks")
    for task, metrics in recorded.items() if isinstance(recorded, dict) else ():
        if isinstance(metrics, dict):
            _task_metrics(metrics, f"{prefix}tasks.{task}.", tasks)
    for key, item in results.items():
        if key not in ("tasks", "ppl", "fp16"):
            _add(found, prefix + key, item, _headline_stderr(key, item, tasks))
    found |= tasks
    ppl = results.get("ppl")
    for name, item in ppl.items() if isinstance(ppl, dict) else ():
        _add(found, f"{prefix}ppl.{name}", item)
    if not prefix:
        _result_metrics(results.get("fp16"), "fp16.", found)


def _task_metrics(task: dict[str, Json], prefix: str, found: dict[str, tuple[float, float | None]]) -> None:
    numbers = metrics_of(task)
    for key, number in numbers.items():
        if not is_stderr(key, numbers):
            found[prefix + key] = (number, numbers.get(stderr_key(key)))


def _headline_stderr(key: str, value: Json, tasks: dict[str, tuple[float, float | None]]) -> float | None:
    """The standard error of `accuracy` or `perplexity`: that of the task's metric which it repeats."""
    is_fraction = key == "accuracy"
    for name, (number, stderr) in tasks.items():
        if number == value and stderr is not None and _is_fraction_name(name) == is_fraction:
            return stderr
    return None


def _is_fraction_name(name: str) -> bool:
    """Whether a metric of that name is a fraction of 1: by its last part, without lm-eval's filter."""
    return _FRACTIONS.fullmatch(name.rpartition(".")[2].partition(",")[0]) is not None


def _metric_row(name: str, values: Sequence[tuple[float, float | None] | None]) -> MetricRow:
    unit = _unit_of(name, [value[0] for value in values if value is not None])
    scale = 100.0 if unit is Unit.FRACTION else 1.0
    first = values[0]
    cells = tuple(_metric_cell(value, first if place else None, scale) for place, value in enumerate(values))
    numbers = [None if value is None else str(value[0]) for value in values]
    return MetricRow(name, unit, cells, any(number != numbers[0] for number in numbers[1:]))


def _unit_of(name: str, numbers: Iterable[float]) -> Unit:
    if name.startswith(_SIZES):
        return Unit.BYTES
    # Some tasks report the same names in per cent: those are no fractions.
    bounded = all(0 <= number <= 1 or math.isnan(number) for number in numbers)
    return Unit.FRACTION if bounded and _is_fraction_name(name) else Unit.PLAIN


def _metric_cell(
    value: tuple[float, float | None] | None, first: tuple[float, float | None] | None, scale: float
) -> MetricCell:
    if value is None:
        return MetricCell()
    number, stderr = value
    if first is None or not math.isfinite(number - first[0]):
        return MetricCell(number, stderr)
    difference = (number - first[0]) * scale
    if stderr is None or first[1] is None or not math.isfinite(stderr + first[1]):
        return MetricCell(number, stderr, difference)
    both = math.hypot(stderr, first[1]) * scale
    return MetricCell(number, stderr, difference, both, abs(difference) > both)


# --- tensors ---


def _tensors(record: Record) -> dict[str, dict[str, Json]]:
    stats = record.get("activation_stats")
    if not isinstance(stats, dict):
        return {}
    return {name: value for name, value in stats.items() if isinstance(value, dict)}


def _tensor_row(name: str, stats: Sequence[dict[str, Json] | None]) -> TensorRow:
    return TensorRow(name, tuple(stats), any(not same(value, stats[0]) for value in stats[1:]))


__all__ = ["Comparison", "ConfigRow", "MetricCell", "MetricRow", "TensorRow", "Unit", "compare", "natural_key", "same"]
