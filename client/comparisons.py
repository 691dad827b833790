"""Experiments side by side, as frozen values."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from client.values import Experiment, Record


@dataclass(frozen=True, slots=True)
class Cell:
    """What one experiment has under a key; `present` tells a null from a key that is not there."""

    present: bool
    value: Any = None


@dataclass(frozen=True, slots=True)
class ConfigRow:
    """One key of the configuration, one cell for each experiment."""

    key: str
    cells: tuple[Cell, ...]
    differs: bool


# Of 1, compared in points; whole; any other number.
Unit: TypeAlias = Literal["fraction", "bytes", "plain"]


@dataclass(frozen=True, slots=True)
class MetricCell:
    """One experiment's value of a metric, and how it differs from the first experiment's.

    `difference` and `difference_stderr` are in points (hundredths) for fractions, else in the metric's own unit.
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
    """One tensor's statistics as the record has them, None where an experiment has no such tensor."""

    name: str
    cells: tuple[Record | None, ...]
    differs: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two or more experiments side by side; the first is what the others are compared with."""

    experiments: tuple[Experiment, ...]
    config: tuple[ConfigRow, ...]
    results: tuple[MetricRow, ...]
    tensors: tuple[TensorRow, ...]


__all__ = ["Cell", "Comparison", "ConfigRow", "MetricCell", "MetricRow", "TensorRow", "Unit"]
