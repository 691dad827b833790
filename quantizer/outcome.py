"""What an experiment that completed comes to, for its summary."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from quamba.reports import LayerReport, ReorderReport
from quantizer.config import RunConfig
from quantizer.events import ExperimentResults

SUMMARY_TENSORS = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """`layers`: the first SUMMARY_TENSORS of the recorded tensors; `artifact`: path and digest of the saved model."""

    config: RunConfig
    layers: tuple[LayerReport, ...]
    recorded_tensors: int
    results: ExperimentResults
    model_size_bytes: Mapping[str, int]
    duration_s: float
    reorder: ReorderReport | None = None
    artifact: Mapping[str, Any] = field(default_factory=dict)


__all__ = ["SUMMARY_TENSORS", "Outcome"]
