"""An experiment as its record (the JSON object of its line) and as qlog.v1.Experiment, without loss either way.

A key of the record that no field has, or whose value does not fit its field, travels in `other`. Three keys are the
store's own and do not travel: `events` (how many the experiment sent), `unfinished` (it may send more) and `crc32c`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from qlog.v1 import common_pb2 as pb

from collector.records import EVENTS_KEY, UNFINISHED_KEY, Json, Record, double_from_json, double_to_json
from collector.wire_results import results_from_json, results_to_json
from collector.wire_stats import stats_from_json, stats_to_json
from collector.wire_values import (
    Typed,
    fields_from_json,
    json_from_fields,
    merge_other,
    take_typed,
    typed_to_json,
)

_CONFIG: Typed = (
    ("model", "string"),
    ("w_bits", "int32"),
    ("a_bits", "int32"),
    ("percentile_alpha", "double"),
    ("group_heads", "bool"),
    ("apply_gptq", "bool"),
    ("quantize_embedding", "bool"),
    ("quantize_lm_head", "bool"),
    ("calib_data_num", "int32"),
    ("calib_seqlen", "int32"),
)
_REORDER_TYPED: Typed = (("avg_range_reduction", "double"), ("avg_range_reduction_grouping_only", "double"))
_REORDER_PLAIN: Typed = (("enabled", "bool"), ("total_layers", "int32"))
# Objects with any keys, and what stands where there are none.
_FREE: Mapping[str, Json] = {
    "environment": {},
    "model": {},
    "calibration": {},
    "model_size_bytes": {},
    "artifact": None,
}
_INT64 = range(-(2**63), 2**63)
_STATUSES: Mapping[str, pb.ExperimentStatus] = {
    "RUNNING": pb.EXPERIMENT_STATUS_RUNNING,
    "COMPLETED": pb.EXPERIMENT_STATUS_COMPLETED,
    "FAILED": pb.EXPERIMENT_STATUS_FAILED,
    "CANCELLED": pb.EXPERIMENT_STATUS_CANCELLED,
    "LOST": pb.EXPERIMENT_STATUS_LOST,
    "CORRUPT": pb.EXPERIMENT_STATUS_CORRUPT,
}

CONFIG_KEYS = frozenset(key for key, _ in _CONFIG)
REORDER_KEYS = frozenset(key for key, _ in (*_REORDER_TYPED, *_REORDER_PLAIN))


def record_from_experiment(experiment: pb.Experiment, *, events: int | None = None) -> Record:
    """The record of an experiment, with the keys in their fixed order.

    Args:
        events: how many events it was built from; None leaves the key out.
    """
    start = experiment.start_time.ToJsonString() if experiment.HasField("start_time") else None
    duration = double_to_json(experiment.duration_s) if experiment.HasField("duration_s") else None
    record: Record = {
        "timestamp": experiment.timestamp,
        "command": experiment.command,
        "config": _config_to_json(experiment.config),
        "activation_stats": {stats.name: stats_to_json(stats) for stats in experiment.layer_stats},
        "reorder_summary": reorder_to_json(experiment.reorder_summary),
        "results": results_to_json(experiment.results),
        "schema_version": experiment.schema_version,
        "experiment_id": experiment.experiment_id,
        "status": status_name(experiment.status),
        "error": experiment.error or None,
        "duration_s": duration,
        "phases": {item.phase: double_to_json(item.duration_s) for item in experiment.phases},
        "start_time": start,
    }
    for key, empty in _FREE.items():
        record[key] = json_from_fields(getattr(experiment, key)) or empty
    record["dropped"] = {item.kind: item.count for item in experiment.dropped}
    if events is not None:
        record[EVENTS_KEY] = events
    merge_other(record, experiment.other)
    return record


def experiment_from_record(
    record: Record, *, number: int | None = None, layer_stats_count: int | None = None
) -> pb.Experiment:
    """The message for a record.

    Args:
        record: with `activation_stats` for the FULL view, without for BASIC.
        number: of its line; None for one that has none.
        layer_stats_count: for BASIC, where the statistics are not there to be counted.
    """
    rest = {key: value for key, value in record.items() if key not in (EVENTS_KEY, UNFINISHED_KEY)}
    experiment = pb.Experiment()
    if number is not None:
        experiment.number = number
    for key in ("timestamp", "command", "experiment_id", "error"):
        take_typed(experiment, rest, ((key, "string"),))
    take_typed(experiment, rest, (("schema_version", "int32"), ("duration_s", "double")))
    _take_objects(experiment, rest)
    _take_status(experiment, rest)
    _take_start_time(experiment, rest)
    _take_counts(experiment, rest)
    for key in _FREE:
        value = rest.get(key)
        if isinstance(value, dict):
            getattr(experiment, key).extend(fields_from_json(value))
        if value is None or isinstance(value, dict):
            rest.pop(key, None)
    experiment.layer_stats_count = len(experiment.layer_stats) if layer_stats_count is None else layer_stats_count
    experiment.other.extend(fields_from_json(rest))
    return experiment


def status_name(status: pb.ExperimentStatus) -> str | None:
    """COMPLETED for EXPERIMENT_STATUS_COMPLETED; None where not known."""
    return next((name for name, value in _STATUSES.items() if value == status), None)


def _take_objects(experiment: pb.Experiment, rest: dict[str, Json]) -> None:
    config = rest.get("config")
    if isinstance(config, dict):
        left = dict(config)
        take_typed(experiment.config, left, _CONFIG)
        experiment.config.other.extend(fields_from_json(left))
        experiment.config.SetInParent()
        del rest["config"]
    stats = rest.get("activation_stats")
    if isinstance(stats, dict):
        experiment.layer_stats.extend(
            stats_from_json(name, value) for name, value in stats.items() if isinstance(value, dict)
        )
        odd: dict[str, Json] = {name: value for name, value in stats.items() if not isinstance(value, dict)}
        rest["activation_stats"] = odd
        if not odd:
            del rest["activation_stats"]
    reorder = rest.get("reorder_summary")
    if isinstance(reorder, dict):
        left = dict(reorder)
        take_typed(experiment.reorder_summary, left, (*_REORDER_TYPED, *_REORDER_PLAIN))
        experiment.reorder_summary.other.extend(fields_from_json(left))
        experiment.reorder_summary.SetInParent()
        del rest["reorder_summary"]
    results = rest.get("results")
    if isinstance(results, dict):
        experiment.results.CopyFrom(results_from_json(results))
        del rest["results"]


def _take_status(experiment: pb.Experiment, rest: dict[str, Json]) -> None:
    status = rest.get("status")
    if status is None:
        rest.pop("status", None)
    elif isinstance(status, str) and status in _STATUSES:
        experiment.status = _STATUSES[status]
        del rest["status"]


def _take_start_time(experiment: pb.Experiment, rest: dict[str, Json]) -> None:
    text = rest.get("start_time")
    if text is None:
        rest.pop("start_time", None)
    elif isinstance(text, str):
        moment = Timestamp()
        try:
            moment.FromJsonString(text)
        except ValueError:
            return  # Not a time: it stays for `other`, as it stands.
        experiment.start_time.CopyFrom(moment)
        del rest["start_time"]


def _take_counts(experiment: pb.Experiment, rest: dict[str, Json]) -> None:
    """`phases` and `dropped`: objects of numbers; entries that are none stay under the same key."""
    for key in ("phases", "dropped"):
        value = rest.get(key)
        if not isinstance(value, dict):
            continue
        left: dict[str, Json] = {}
        for name, item in value.items():
            seconds = double_from_json(item)
            if key == "phases" and seconds is not None:
                experiment.phases.add(phase=name, duration_s=seconds)
            elif key == "dropped" and isinstance(item, int) and not isinstance(item, bool) and item in _INT64:
                experiment.dropped.add(kind=name, count=item)
            else:
                left[name] = item
        rest[key] = left
        if not left:
            del rest[key]


def _config_to_json(config: pb.ExperimentConfig) -> Json:
    out = typed_to_json(config, _CONFIG, absent_null=True)
    merge_other(out, config.other)
    return out


def reorder_to_json(summary: pb.ReorderSummary) -> Json:
    """The record's `reorder_summary`; its default where there was no reordering."""
    average = double_to_json(summary.avg_range_reduction) if summary.HasField("avg_range_reduction") else None
    out: dict[str, Json] = {
        "enabled": summary.enabled,
        "avg_range_reduction": average,
        "total_layers": summary.total_layers,
    }
    out |= typed_to_json(summary, _REORDER_TYPED[1:], absent_null=False)
    merge_other(out, summary.other)
    return out


def corrupt_experiment(number: int, error: str) -> pb.Experiment:
    """What is shown of a line that cannot be read."""
    return pb.Experiment(number=number, status=pb.EXPERIMENT_STATUS_CORRUPT, error=error)


def upsert_fields(target: Any, source: Iterable[pb.Field]) -> None:
    """Merge named values into a repeated Field: a name that is there gets the new value, others are added."""
    places = {field.name: place for place, field in enumerate(target)}
    for field in source:
        if field.name in places:
            target[places[field.name]].CopyFrom(field)
        else:
            places[field.name] = len(target)
            target.add().CopyFrom(field)


__all__ = [
    "CONFIG_KEYS",
    "REORDER_KEYS",
    "corrupt_experiment",
    "experiment_from_record",
    "record_from_experiment",
    "reorder_to_json",
    "status_name",
    "upsert_fields",
]
