"""What happens in an experiment, as messages of `qlog.v1`: with `quantizer.wire_*` the only place that knows both."""

from collections.abc import Iterable, Mapping
from typing import Any

from qlog.v1 import common_pb2 as pb

from quamba.reports import (
    REORDER_DEFINITION,
    LayerReport,
    MetricReport,
    PerplexityReport,
    ProgressReport,
    ReorderRange,
    ReorderRanges,
    ReorderReport,
    TaskReport,
    ValueRange,
)
from quantizer.events import (
    Began,
    Evaluated,
    ExperimentEvent,
    ExperimentResults,
    FactsKnown,
    Finished,
    LayerMeasured,
    Progressed,
    Reordered,
    Status,
)
from quantizer.texts import name_of, text_of
from quantizer.wire_values import field_messages, timestamp_message

_FIXED_CONFIG = frozenset(
    field.name for field in pb.ExperimentConfig.DESCRIPTOR.fields if field.name != "other"
)  # The typed keys; all others travel in `other`.

STATUSES: Mapping[Status, pb.ExperimentStatus] = {
    Status.COMPLETED: pb.EXPERIMENT_STATUS_COMPLETED,
    Status.FAILED: pb.EXPERIMENT_STATUS_FAILED,
    Status.CANCELLED: pb.EXPERIMENT_STATUS_CANCELLED,
}

# A user's own statistic of one of these names would be taken for ours.
_STATS_KEYS = frozenset(field.name for field in (*pb.LayerStats.DESCRIPTOR.fields, *pb.ReorderEffect.DESCRIPTOR.fields))


def config_message(config: Mapping[str, Any]) -> pb.ExperimentConfig:
    """The record's `config`: the fixed keys typed (None: absent), every other in `other`."""
    fixed = {name: value for name, value in config.items() if name in _FIXED_CONFIG and value is not None}
    if "model" in fixed:
        fixed["model"] = text_of(fixed["model"])
    other = {name: value for name, value in config.items() if name not in _FIXED_CONFIG}
    return pb.ExperimentConfig(**fixed, other=field_messages(other))


def _range_message(interval: ValueRange) -> pb.ValueRange:
    return pb.ValueRange(min=interval.min, max=interval.max, range=interval.range)


def layer_stats_message(report: LayerReport) -> pb.LayerStats:
    """One tensor's statistics; the user's own go into `other`."""
    return pb.LayerStats(
        name=name_of(report.name),
        before_percentile=_range_message(report.before),
        after_percentile=_range_message(report.after),
        percentile_alpha=report.percentile_alpha,
        clipped_ratio=report.clipped_ratio,
        range_reduction=report.range_reduction,
        measured_clipped_ratio=report.measured_clipped_ratio,
        count=report.count,
        absmax=report.absmax,
        scale=report.scale,
        bits=report.bits,
        observer=name_of(report.observer),
        mean=report.mean,
        std=report.std,
        median=report.median,
        p99=report.p99,
        sqnr_db=report.sqnr_db,
        saturated_ratio=report.saturated_ratio,
        reorder=None if report.reorder is None else _reorder_message(report.reorder),
        other=field_messages(
            {f"{name}_" if name in _STATS_KEYS else name: value for name, value in report.statistics.items()}
        ),
    )


def _reorder_range_message(interval: ReorderRange) -> pb.ValueRange:
    return pb.ValueRange(min=interval.min, max=interval.max, range=interval.range, span=interval.span)


def _reorder_message(ranges: ReorderRanges) -> pb.ReorderEffect:
    return pb.ReorderEffect(
        before_reorder=_reorder_range_message(ranges.before),
        after_reorder=_reorder_range_message(ranges.after),
        range_reduction_pct=ranges.range_reduction_pct,
        range_reduction_grouping_only_pct=ranges.range_reduction_grouping_only_pct,
        n_groups=ranges.n_groups,
        definition=REORDER_DEFINITION,
    )


def _reorder_summary_message(report: ReorderReport | None) -> pb.ReorderSummary:
    if report is None:
        return pb.ReorderSummary(enabled=False, total_layers=0)
    return pb.ReorderSummary(
        enabled=True,
        avg_range_reduction=report.avg_range_reduction,
        total_layers=report.total_layers,
        avg_range_reduction_grouping_only=report.avg_range_reduction_grouping_only,
    )


def progress_message(report: ProgressReport) -> pb.Progress:
    """How far a phase has come."""
    return pb.Progress(phase=name_of(report.phase), done=report.done, total=report.total, unit=name_of(report.unit))


def _metric_message(metric: MetricReport) -> pb.Metric:
    known = metric.stderr == metric.stderr  # NaN stands for "none"
    return pb.Metric(name=name_of(metric.name), value=metric.value, stderr=metric.stderr if known else None)


def _task_message(task: TaskReport) -> pb.TaskResult:
    return pb.TaskResult(
        task=name_of(task.task),
        metrics=[_metric_message(metric) for metric in task.metrics],
        n=task.n,
        num_fewshot=task.num_fewshot,
        limit=task.limit,
        version=name_of(task.version),
    )


def _perplexity_messages(reports: Iterable[PerplexityReport]) -> list[pb.DatasetPerplexity]:
    return [pb.DatasetPerplexity(data_set=name_of(report.data_set), perplexity=report.perplexity) for report in reports]


def results_message(results: ExperimentResults) -> pb.Results:
    """All results known; what is not known is absent."""
    windows = {
        report.data_set: {"windows": report.windows, "window_tokens": report.window_tokens} for report in results.ppl
    }
    return pb.Results(
        accuracy=results.accuracy,
        perplexity=results.perplexity,
        tasks=[_task_message(task) for task in results.tasks],
        ppl=_perplexity_messages(results.ppl),
        fp16=results_message(results.fp16) if results.fp16 is not None else None,
        other=field_messages({"ppl_windows": windows} if windows else {}),
    )


def event_message(event: ExperimentEvent, dropped: Mapping[str, int] | None = None) -> pb.Event:
    """One event as the collector takes it.

    Args:
        event: what happened.
        dropped: for Finished: events that were lost before they reached the spool, by kind.
    """
    match event:
        case Began():
            return pb.Event(
                begin=pb.Begin(
                    timestamp=event.timestamp,
                    start_time=timestamp_message(event.start_time),
                    command=text_of(event.command),
                    config=config_message(event.config),
                    environment=field_messages(event.environment),
                )
            )
        case LayerMeasured(report):
            return pb.Event(layer_stats=layer_stats_message(report))
        case Reordered(reordering):
            return pb.Event(reorder_summary=_reorder_summary_message(reordering))
        case Progressed(progress):
            return pb.Event(progress=progress_message(progress))
        case FactsKnown():
            return pb.Event(
                facts=pb.Facts(
                    model=field_messages(event.model),
                    calibration=field_messages(event.calibration),
                    model_size_bytes=field_messages(event.model_size_bytes),
                    artifact=field_messages(event.artifact),
                )
            )
        case Evaluated(results):
            return pb.Event(evaluation_result=pb.EvaluationResult(results=results_message(results)))
        case Finished():
            return pb.Event(
                finish=pb.Finish(
                    status=STATUSES[event.status],
                    error=text_of(event.error),
                    duration_s=event.duration_s,
                    phases=[pb.PhaseDuration(phase=name, duration_s=seconds) for name, seconds in event.phases],
                    reorder_summary=_reorder_summary_message(event.reorder),
                    dropped=dropped_messages(dropped or {}),
                )
            )


def dropped_messages(dropped: Mapping[str, int]) -> list[pb.DroppedEvents]:
    """Events lost, by kind."""
    return [pb.DroppedEvents(kind=kind, count=count) for kind, count in sorted(dropped.items()) if count]


def spool_entry(event: ExperimentEvent, dropped: Mapping[str, int] | None = None) -> tuple[str, bytes]:
    """The kind and the bytes of one event, as the spool keeps them."""
    message = event_message(event, dropped)
    return str(message.WhichOneof("event")), message.SerializeToString()


__all__ = [
    "STATUSES",
    "config_message",
    "dropped_messages",
    "event_message",
    "layer_stats_message",
    "progress_message",
    "results_message",
    "spool_entry",
]
