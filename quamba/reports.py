"""What the library tells while it works: frozen values, yielded as they are made.

A caller gets them from iterators (`quantize`, `evaluate_tasks`, `perplexity`), so that streaming is the shape of the
domain: a notebook prints them, the quantizer sends them on.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

# What a record says of a reordered range.
REORDER_DEFINITION = (
    "range = the absolute maximum that is put on code 127; before: of the whole tensor, "
    "after: mean over groups (SSD group x head group x channel group, for states x column) weighted by their channels"
)


@dataclass(frozen=True, slots=True)
class ValueRange:
    """A signed interval of activation values."""

    min: float
    max: float

    @property
    def range(self) -> float:
        """max - min."""
        return self.max - self.min

    def inside(self, clip: float) -> "ValueRange":
        """The part inside [-clip, clip]; the nearest single point where the two do not meet."""
        return ValueRange(min=max(-clip, min(self.min, clip)), max=min(clip, max(self.max, -clip)))


@dataclass(frozen=True, slots=True)
class ReorderRange:
    """The signed extremes of a tensor, and its symmetric clipping range; of groups, the means weighted by channels.

    Attributes:
        min: the smallest value.
        max: the largest value.
        range: scale * 127.
    """

    min: float
    max: float
    range: float

    @property
    def span(self) -> float:
        """max - min."""
        return self.max - self.min


@dataclass(frozen=True, slots=True)
class ReorderRanges:
    """One tensor's ranges without groups, with them, and with groups of the same sizes in the original order.

    Attributes:
        before: of the whole tensor.
        after: of the groups.
        control: of the groups, nothing reordered.
        range_reduction_rms: 1 - sqrt(sum n r^2) / (sqrt(sum n) before.range), which follows the rounding noise.
        n_groups: groups with a scale each.
    """

    before: ReorderRange
    after: ReorderRange
    control: ReorderRange
    range_reduction_rms: float
    n_groups: int

    @property
    def range_reduction(self) -> float:
        """(before.range - after.range) / before.range; 0 for a tensor of zeros."""
        return _reduction(self.before.range, self.after.range)

    @property
    def range_reduction_pct(self) -> float:
        """The same in per cent."""
        return 100.0 * self.range_reduction

    @property
    def range_reduction_grouping_only(self) -> float:
        """What the number of scales alone is worth: the reduction of the control."""
        return _reduction(self.before.range, self.control.range)

    @property
    def range_reduction_grouping_only_pct(self) -> float:
        """The same in per cent."""
        return 100.0 * self.range_reduction_grouping_only

    @property
    def range_reduction_reorder_only(self) -> float:
        """What sorting and clustering alone are worth: (control.range - after.range) / control.range."""
        return _reduction(self.control.range, self.after.range)


def _reduction(before: float, after: float) -> float:
    return (before - after) / before if before > 0 else 0.0


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One watched tensor over the whole calibration.

    Attributes:
        name: `layer_{i}.{op}:{input|output}` or `lm_head:input`.
        before: the true signed extremes.
        after: the clipping interval that the quantizer uses.
        percentile_alpha: the quantile used for this tensor; 1.0 where an absolute maximum was used.
        clipped_ratio: nominal, 1 - percentile_alpha.
        measured_clipped_ratio: elements outside the clipping interval / elements.
        count: elements seen.
        absmax: the largest absolute value.
        scale: of the quantizer, absmax-of-interval / 127 for 8 bits (per tensor).
        bits: of the quantizer.
        observer: "ema", "exact" or "minmax".
        mean, std: over all elements.
        median, p99: of the signed values, over a sample of the elements (see `quamba.observers.sample`).
        sqnr_db: 10 log10(sum x^2 / sum (x - dequantize(quantize(x)))^2); what clipping costs is summed over all
            elements, what rounding costs over the same sample.
        saturated_ratio: elements that quantize to the first or the last code / elements, over the same sample.
        statistics: those of the user's own, by name (`quamba.statistics`).
        reorder: what grouping and reordering did to the range; None where they were not asked for. `after`, `scale` and
            the shares are then those of groups, `after` and `scale` of the widest one.
    """

    name: str
    before: ValueRange
    after: ValueRange
    percentile_alpha: float
    clipped_ratio: float
    measured_clipped_ratio: float
    count: int
    absmax: float
    scale: float
    bits: int
    observer: str
    mean: float
    std: float
    median: float
    p99: float
    sqnr_db: float
    saturated_ratio: float
    statistics: Mapping[str, float] = field(default_factory=dict)
    reorder: ReorderRanges | None = None

    @property
    def range_reduction(self) -> float:
        """(before.range - after.range) / before.range; 0 for a tensor that is constant."""
        before = self.before.range
        return (before - self.after.range) / before if before > 0 else 0.0


@dataclass(frozen=True, slots=True)
class ReorderReport:
    """What grouping and reordering did to all layers.

    Attributes:
        total_layers: reordered.
        avg_range_reduction: mean over layers and grouped tensors of the reduction of the range, in per cent.
        avg_range_reduction_grouping_only: the same for groups of the same sizes without reordering.
    """

    total_layers: int
    avg_range_reduction: float
    avg_range_reduction_grouping_only: float


@dataclass(frozen=True, slots=True)
class ProgressReport:
    """How far a phase has come. `total` is 0 where it is not known."""

    phase: str
    done: int
    total: int
    unit: str


@dataclass(frozen=True, slots=True)
class MetricReport:
    """One metric of one task; `stderr` is NaN where lm-eval gives none."""

    name: str
    value: float
    stderr: float = math.nan


@dataclass(frozen=True, slots=True)
class TaskReport:
    """One lm-eval task's results. `limit` is the user's limit on documents, None for all."""

    task: str
    metrics: tuple[MetricReport, ...]
    n: int
    num_fewshot: int
    limit: float | None
    version: str


@dataclass(frozen=True, slots=True)
class PerplexityReport:
    """exp of the mean negative log likelihood in nats over `windows` windows of `window_tokens` tokens."""

    data_set: str
    perplexity: float
    windows: int
    window_tokens: int


__all__ = [
    "REORDER_DEFINITION",
    "LayerReport",
    "MetricReport",
    "PerplexityReport",
    "ProgressReport",
    "ReorderRange",
    "ReorderRanges",
    "ReorderReport",
    "TaskReport",
    "ValueRange",
]
