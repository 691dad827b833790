"""The log as flat tables: one row an experiment, or one row a tensor. Columns are dotted paths into the record."""

import re
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any

from client.annotations import annotations_of
from client.row_spool import Kind
from client.values import Experiment


class TableName(Enum):
    """Which table."""

    EXPERIMENTS = "experiments"
    LAYERS = "layers"


# What stands first, and the kinds of columns that may be empty for a whole log; further ones come as they are found.
_ABOUT: Mapping[str, Kind] = {"number": Kind.INT, "experiment_id": Kind.TEXT, "timestamp": Kind.TEXT}
_CONFIG: Mapping[str, Kind] = {
    "config.model": Kind.TEXT,
    "config.w_bits": Kind.INT,
    "config.a_bits": Kind.INT,
    "config.percentile_alpha": Kind.DOUBLE,
    "config.group_heads": Kind.BOOL,
    "config.apply_gptq": Kind.BOOL,
}
_INTERVALS = ("before_percentile", "after_percentile")
_NUMBERS = ("percentile_alpha", "clipped_ratio", "range_reduction", "measured_clipped_ratio")
COLUMNS: Mapping[TableName, Mapping[str, Kind]] = {
    TableName.EXPERIMENTS: {
        **_ABOUT,
        "status": Kind.TEXT,
        "error": Kind.TEXT,
        "duration_s": Kind.DOUBLE,
        **_CONFIG,
        "results.accuracy": Kind.DOUBLE,
        "results.perplexity": Kind.DOUBLE,
        "reorder_summary.enabled": Kind.BOOL,
        "reorder_summary.avg_range_reduction": Kind.DOUBLE,
        "reorder_summary.total_layers": Kind.INT,
        "tags": Kind.TEXT,
        "note": Kind.TEXT,
        "archived": Kind.BOOL,
    },
    TableName.LAYERS: {
        **_ABOUT,
        **_CONFIG,
        "tensor": Kind.TEXT,
        "layer": Kind.INT,
        **{f"{name}.{end}": Kind.DOUBLE for name in _INTERVALS for end in ("min", "max", "range")},
        **dict.fromkeys(_NUMBERS, Kind.DOUBLE),
        "count": Kind.INT,
        **dict.fromkeys(("absmax", "scale", "mean", "std", "median", "p99", "sqnr_db", "saturated_ratio"), Kind.DOUBLE),
    },
}
# The parts of a record, in the order of their columns.
_PARTS = ("", "config", "results", "reorder_summary", "model", "calibration", "model_size_bytes", "artifact", "phases")
_OBJECTS = frozenset((*_PARTS, *_INTERVALS, "before_reorder", "after_reorder"))
_LAYER = re.compile(r"layer_(\d{1,9})\.", re.ASCII)


def rows_of(experiment: Experiment, table: TableName) -> Iterator[dict[str, Any]]:
    """The rows of one experiment; for LAYERS it has to have its statistics."""
    record = {**experiment.record}
    tensors = record.pop("activation_stats", None)
    about = {
        "number": experiment.number,
        "experiment_id": experiment.experiment_id or None,
        "timestamp": record.get("timestamp"),
    }
    if table is TableName.EXPERIMENTS:
        record["status"] = experiment.status or None
        yield {**about, **dict(_leaves(record)), **dict(annotations_of(experiment))}
        return
    config = dict(_leaves({"config": record.get("config")}))
    shared = {**about, **{name: config.get(name) for name in _CONFIG}}
    for name, statistics in (tensors if isinstance(tensors, Mapping) else {}).items():
        layer = _LAYER.match(name)
        numbers = dict(_leaves(statistics)) if isinstance(statistics, Mapping) else {}
        yield {**shared, "tensor": name, "layer": int(layer[1]) if layer else None, **numbers}


def _leaves(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """What stands under each dotted path; an object without keys, or null in place of one, stands nowhere."""
    for name, item in value.items():
        inner = f"{path}.{name}" if path else str(name)
        if isinstance(item, Mapping):
            yield from _leaves(item, inner)
        elif item is not None or inner not in _OBJECTS:
            yield inner, item


def ordered(columns: Iterable[str], table: TableName) -> list[str]:
    """The columns of a table in their order: those that are always there, then part by part as they came."""
    fixed = COLUMNS[table]
    rest = [name for name in columns if name not in fixed]
    if table is TableName.EXPERIMENTS:
        places = {part: place for place, part in enumerate(_PARTS)}
        rest.sort(key=lambda name: places.get(name.rpartition(".")[0] and name.partition(".")[0], len(places)))
    return [*fixed, *rest]


__all__ = ["COLUMNS", "TableName", "ordered", "rows_of"]
