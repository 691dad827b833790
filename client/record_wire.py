"""The parts of a record: from `qlog.v1` messages to the JSON values that stand in the log, in its order of keys."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from google.protobuf.message import Message
from qlog.v1 import common_pb2 as pb
from qlog.v1.records import TASK_KEYS, stderr_key

Json: TypeAlias = Any

_STATUS_PREFIX = "EXPERIMENT_STATUS_"
_CONFIG_KEYS = tuple(field.name for field in pb.ExperimentConfig.DESCRIPTOR.fields if field.name != "other")
# Keys of a tensor that are always there, null where not known; and those that are there where known.
_TENSOR_FIXED = ("percentile_alpha", "clipped_ratio", "range_reduction")
_TENSOR_APART = ("name", "before_percentile", "after_percentile", "reorder", "other")
_TENSOR_MORE = tuple(
    field.name for field in pb.LayerStats.DESCRIPTOR.fields if field.name not in (*_TENSOR_APART, *_TENSOR_FIXED)
)
_REORDER_MORE = ("range_reduction_pct", "n_groups", "definition", "range_reduction_grouping_only_pct")
# Lines of the earlier logger have these keys alone.
_EARLIEST_KEYS = frozenset(("timestamp", "command", "config", "activation_stats", "reorder_summary", "results"))


def json_value(value: pb.Value) -> Json:
    """A JSON value; whole numbers stay whole."""
    match value.WhichOneof("kind"):
        case None | "null_value":
            return None
        case "list_value":
            return [json_value(item) for item in value.list_value.values]
        case "object_value":
            return json_object(value.object_value.fields)
        case kind:
            return getattr(value, kind)


def json_object(fields: Iterable[pb.Field]) -> dict[str, Json]:
    """An object in its order of keys."""
    return {field.name: json_value(field.value) for field in fields}


def present(message: Message, names: Iterable[str]) -> dict[str, Json]:
    """The optional fields of `names` that are there."""
    return {name: getattr(message, name) for name in names if message.HasField(name)}


def _or_null(message: Message, names: Iterable[str]) -> dict[str, Json]:
    return {name: getattr(message, name) if message.HasField(name) else None for name in names}


def _with_other(record: dict[str, Json], other: Iterable[pb.Field]) -> dict[str, Json]:
    """Add the keys that have no field of their own; objects under the same key are merged."""
    for name, value in json_object(other).items():
        there = record.get(name)
        record[name] = {**there, **value} if isinstance(there, dict) and isinstance(value, dict) else value
    return record


def status_name(status: pb.ExperimentStatus) -> str:
    """COMPLETED, FAILED, ...; empty where there is none, a number where this version does not know it."""
    if status == pb.EXPERIMENT_STATUS_UNSPECIFIED:
        return ""
    known = pb.ExperimentStatus.DESCRIPTOR.values_by_number.get(status)
    return known.name.removeprefix(_STATUS_PREFIX) if known else str(status)


def config_record(config: pb.ExperimentConfig) -> dict[str, Json]:
    """`config`; what was not given is null."""
    return _with_other(_or_null(config, _CONFIG_KEYS), config.other)


def _range_record(message: Message, name: str) -> dict[str, Json] | None:
    if not message.HasField(name):
        return None
    interval: pb.ValueRange = getattr(message, name)
    return {"min": interval.min, "max": interval.max, "range": interval.range, **present(interval, ("span",))}


def tensor_record(stats: pb.LayerStats) -> dict[str, Json]:
    """One entry of `activation_stats`."""
    record: dict[str, Json] = {name: _range_record(stats, name) for name in ("before_percentile", "after_percentile")}
    record |= _or_null(stats, _TENSOR_FIXED)
    record |= present(stats, _TENSOR_MORE)
    if stats.HasField("reorder"):
        record |= {name: _range_record(stats.reorder, name) for name in ("before_reorder", "after_reorder")}
        record |= present(stats.reorder, _REORDER_MORE)
    return _with_other(record, stats.other)


def reorder_summary_record(summary: pb.ReorderSummary) -> dict[str, Json]:
    """`reorder_summary`; without reordering its average is null."""
    record: dict[str, Json] = {
        "enabled": summary.enabled,
        **_or_null(summary, ("avg_range_reduction",)),
        "total_layers": summary.total_layers,
        **present(summary, ("avg_range_reduction_grouping_only",)),
    }
    return _with_other(record, summary.other)


def _task_record(task: pb.TaskResult) -> dict[str, Json]:
    record: dict[str, Json] = {}
    for metric in task.metrics:
        record[metric.name] = metric.value
        if metric.HasField("stderr"):
            record[stderr_key(metric.name)] = metric.stderr
    return _with_other(record | _or_null(task, TASK_KEYS), task.other)


def results_record(results: pb.Results) -> dict[str, Json]:
    """`results`: accuracy and perplexity always, null where not known."""
    record = _or_null(results, ("accuracy", "perplexity"))
    record["tasks"] = {task.task: _task_record(task) for task in results.tasks}
    record["ppl"] = {entry.data_set: entry.perplexity for entry in results.ppl}
    if results.HasField("fp16"):
        record["fp16"] = results_record(results.fp16)
    return _with_other(record, results.other)


def phases_record(phases: Iterable[pb.PhaseDuration]) -> dict[str, float]:
    """Seconds by phase."""
    return {phase.phase: phase.duration_s for phase in phases}


def experiment_record(experiment: pb.Experiment, *, full: bool = False) -> dict[str, Json]:
    """The line, without its checksum.

    Args:
        full: with `activation_stats`, even where there are none.
    """
    reordered = experiment.HasField("reorder_summary")
    summary = reorder_summary_record(experiment.reorder_summary) if reordered else None
    record: dict[str, Json] = {
        "timestamp": experiment.timestamp,
        "command": experiment.command,
        "config": config_record(experiment.config) if experiment.HasField("config") else None,
        "activation_stats": {stats.name: tensor_record(stats) for stats in experiment.layer_stats},
        "reorder_summary": summary,
        "results": results_record(experiment.results) if experiment.HasField("results") else None,
        "schema_version": experiment.schema_version,
        "experiment_id": experiment.experiment_id,
        "status": status_name(experiment.status) or None,
        "error": experiment.error or None,
        "duration_s": experiment.duration_s if experiment.HasField("duration_s") else None,
        "phases": phases_record(experiment.phases),
        "start_time": experiment.start_time.ToJsonString() if experiment.HasField("start_time") else None,
        **{name: json_object(fields) for name, fields in _free_parts(experiment)},
        "dropped": {entry.kind: entry.count for entry in experiment.dropped},
    }
    record["artifact"] = record["artifact"] or None
    if not full:
        del record["activation_stats"]
    if not experiment.schema_version:
        record = {name: value for name, value in record.items() if name in _EARLIEST_KEYS or value}
    return _with_other(record, experiment.other)


def _free_parts(message: pb.Experiment | pb.Facts) -> Iterator[tuple[str, Iterable[pb.Field]]]:
    for name in ("environment", "model", "calibration", "model_size_bytes", "artifact"):
        yield name, getattr(message, name)


def facts_record(facts: pb.Facts) -> dict[str, Json]:
    """What became known, by part."""
    return {name: json_object(fields) for name, fields in _free_parts(facts) if fields}


__all__ = [
    "config_record",
    "experiment_record",
    "facts_record",
    "json_object",
    "json_value",
    "phases_record",
    "present",
    "reorder_summary_record",
    "results_record",
    "status_name",
    "tensor_record",
]
