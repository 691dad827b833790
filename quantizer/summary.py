"""The text that ends an experiment: what was asked, what clipping did, what was measured, where it is recorded."""

import math
from collections.abc import Iterable

from quamba.reports import LayerReport, ReorderReport, TaskReport
from quantizer.config import RunConfig
from quantizer.events import ExperimentResults
from quantizer.outcome import Outcome
from quantizer.recorder import Delivery

_RULE = "-" * 78


def summary(outcome: Outcome, delivery: Delivery) -> str:
    """Several lines of text without a newline at the end."""
    sections = (
        _configuration(outcome.config),
        _activations(outcome),
        _reordering(outcome.reorder),
        _sizes(outcome),
        _artifact(outcome),
        _results(outcome.results),
        [f"Duration         {_duration(outcome.duration_s)}", recorded(delivery)],
    )
    lines = [line for section in sections if section for line in (*section, "")]
    return "\n".join([_RULE, *lines[:-1], _RULE])


def recorded(delivery: Delivery) -> str:
    """Where the record is, in one line."""
    if delivery.delivered:
        number = "" if delivery.number is None else f"number {delivery.number}, "
        return f"Recorded         {number}id {delivery.experiment_id}, in {delivery.collector}"
    if delivery.lost:
        return (
            f"Recorded         NO: {delivery.collector} is away, and the disk of {delivery.spool} takes nothing more. "
            "Keep this summary"
        )
    return (
        f"Recorded         not yet: {delivery.collector} is away. The record (id {delivery.experiment_id}) is kept in "
        f"{delivery.spool} and sent by the next run, or by `quantizer spool flush`"
    )


def _configuration(config: RunConfig) -> list[str]:
    if not config.quantized:
        return [f"Model            {config.model}", "Quantization     none"]
    saved = " (as it was saved)" if config.stored else ""
    alpha = "default" if config.percentile_alpha is None else str(config.percentile_alpha)
    calibration = [
        f"Calibration      {config.calib_data}, {config.calib_data_num} x {config.calib_seqlen} tokens at most"
    ]
    if config.stored:
        calibration = []
    return [
        f"Model            {config.model}",
        f"Quantization     W{config.w_bits}A{'X' if config.hybrid else config.a_bits}{saved}",
        f"Percentile alpha {alpha} ({config.recipe().observer_kind})",
        f"Rotation         {config.rotation}",
        f"Head grouping    {'on' if config.group_heads else 'off'}",
        f"GPTQ             {'on' if config.apply_gptq else 'off'}",
        f"Embedding, head  {_bits(config.quantize_embedding, config)}, {_bits(config.quantize_lm_head, config)}",
        *calibration,
    ]


def _bits(quantized: bool, config: RunConfig) -> str:
    return f"{config.w_bits} bits" if quantized else "float"


def _activations(outcome: Outcome) -> list[str]:
    if not outcome.layers:
        return []
    width = max(len(report.name) for report in outcome.layers)
    width = max(width, len("average"))
    head = f"{'Activations':<{width}}  {'range before':>12}  {'range after':>12}  {'reduction':>9}  {'clipped':>9}"
    rows = [
        _row(report.name, width, report.before.range, report.after.range, report.range_reduction, _clipped(report))
        for report in outcome.layers
    ]
    average = _row(
        "average",
        width,
        _mean(report.before.range for report in outcome.layers),
        _mean(report.after.range for report in outcome.layers),
        _mean(report.range_reduction for report in outcome.layers),
        _mean(_clipped(report) for report in outcome.layers),
    )
    lines = [head, *rows, average]
    if outcome.recorded_tensors > len(outcome.layers):
        lines.append(f"({len(outcome.layers)} of {outcome.recorded_tensors} recorded tensors)")
    return lines


def _clipped(report: LayerReport) -> float:
    return report.measured_clipped_ratio


def _row(name: str, width: int, before: float, after: float, reduction: float, clipped: float) -> str:
    return f"{name:<{width}}  {before:>12.4f}  {after:>12.4f}  {reduction:>9.2%}  {clipped:>9.4%}"


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed)


def _reordering(report: ReorderReport | None) -> list[str]:
    if report is None:
        return ["Reordering       off (0 layers)"]
    average, alone = f"{report.avg_range_reduction:.2f} %", f"{report.avg_range_reduction_grouping_only:.2f} %"
    return [f"Reordering       {report.total_layers} layers, ranges {average} smaller ({alone} by grouping alone)"]


def _sizes(outcome: Outcome) -> list[str]:
    before, after = outcome.model_size_bytes.get("before"), outcome.model_size_bytes.get("after")
    if not before or not after or before == after:
        return []
    return [f"Model size       {before / 1e6:.2f} MB, then {after / 1e6:.2f} MB ({before / after:.2f} times smaller)"]


def _artifact(outcome: Outcome) -> list[str]:
    if not outcome.artifact:
        return []
    used = "used again" if outcome.artifact["reused"] else "saved"
    return [f"Quantized model  {used}: {outcome.artifact['path']}"]


def _results(results: ExperimentResults) -> list[str]:
    lines = [f"{label:<16} {text}" for label, text in _headline(results)]
    for task in results.tasks:
        lines.append(f"  {task.task}: {_metrics(task)}")
    lines += [
        f"  {report.data_set}: perplexity {report.perplexity:.4f} ({report.windows} windows)" for report in results.ppl
    ]
    if results.fp16 is not None:
        lines += [f"{label + ', fp16':<16} {text}" for label, text in _headline(results.fp16)]
    return lines


def _headline(results: ExperimentResults) -> Iterable[tuple[str, str]]:
    if results.accuracy is not None:
        yield "Accuracy", f"{results.accuracy:.4f} ({results.accuracy:.2%})"
    if results.perplexity is not None:
        yield "Perplexity", f"{results.perplexity:.4f}"


def _metrics(task: TaskReport) -> str:
    parts = []
    for metric in task.metrics:
        error = "" if math.isnan(metric.stderr) else f" ± {metric.stderr:.4f}"
        parts.append(f"{metric.name} {metric.value:.4f}{error}")
    return f"{', '.join(parts)} ({task.n} documents, {task.num_fewshot} shots)"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return (
        f"{hours} h {minutes} min {rest:.0f} s"
        if hours
        else f"{minutes} min {rest:.0f} s"
        if minutes
        else f"{rest:.1f} s"
    )


__all__ = ["recorded", "summary"]
