"""One tensor's statistics: its JSON object in a record, and LayerStats."""

from qlog.v1 import common_pb2 as pb

from collector.records import Json, double_from_json, double_to_json
from collector.wire_values import (
    Typed,
    fields_from_json,
    merge_other,
    take_typed,
    typed_to_json,
)

# Always there, null where not known.
_FIXED: Typed = (("percentile_alpha", "double"), ("clipped_ratio", "double"), ("range_reduction", "double"))
# There where known.
_MORE: Typed = (
    ("measured_clipped_ratio", "double"),
    ("count", "int64"),
    ("absmax", "double"),
    ("scale", "double"),
    ("bits", "int32"),
    ("observer", "string"),
    ("mean", "double"),
    ("std", "double"),
    ("median", "double"),
    ("p99", "double"),
    ("sqnr_db", "double"),
    ("saturated_ratio", "double"),
)
_REORDER: Typed = (
    ("range_reduction_pct", "double"),
    ("n_groups", "int32"),
    ("definition", "string"),
    ("range_reduction_grouping_only_pct", "double"),
)
_PERCENTILE_RANGES = ("before_percentile", "after_percentile")
_REORDER_RANGES = ("before_reorder", "after_reorder")

STATS_KEYS = frozenset((*_PERCENTILE_RANGES, *_REORDER_RANGES, *(key for key, _ in (*_FIXED, *_MORE, *_REORDER))))


def stats_to_json(stats: pb.LayerStats) -> Json:
    """The object under the tensor's name in `activation_stats`."""
    out: dict[str, Json] = {}
    for key in _PERCENTILE_RANGES:
        out[key] = _range_to_json(getattr(stats, key)) if stats.HasField(key) else None
    out |= typed_to_json(stats, _FIXED, absent_null=True)
    out |= typed_to_json(stats, _MORE, absent_null=False)
    if stats.HasField("reorder"):
        effect = stats.reorder
        for key in _REORDER_RANGES:
            out[key] = _range_to_json(getattr(effect, key)) if effect.HasField(key) else None
        out |= typed_to_json(effect, _REORDER, absent_null=False)
    merge_other(out, stats.other)
    return out


def stats_from_json(name: str, value: dict[str, Json]) -> pb.LayerStats:
    """The inverse of `stats_to_json`; what has no field goes to `other`."""
    rest = dict(value)
    stats = pb.LayerStats(name=name)
    for key in _PERCENTILE_RANGES:
        _take_range(rest, key, getattr(stats, key))
    take_typed(stats, rest, _FIXED)
    take_typed(stats, rest, _MORE)
    if any(key in rest for key in _REORDER_RANGES) or any(key in rest for key, _ in _REORDER):
        stats.reorder.SetInParent()
        for key in _REORDER_RANGES:
            _take_range(rest, key, getattr(stats.reorder, key))
        take_typed(stats.reorder, rest, _REORDER)
    if rest:
        stats.other.extend(fields_from_json(rest))
    return stats


def _range_to_json(value: pb.ValueRange) -> Json:
    out: dict[str, Json] = {
        "min": double_to_json(value.min),
        "max": double_to_json(value.max),
        "range": double_to_json(value.range),
    }
    if value.HasField("span"):
        out["span"] = double_to_json(value.span)
    return out


def _take_range(source: dict[str, Json], key: str, target: pb.ValueRange) -> None:
    """Move a range into the message, where it has its three numbers; further keys stay under the same key."""
    value = source.get(key)
    if value is None:
        source.pop(key, None)
        return
    if not isinstance(value, dict):
        return
    low, high, width = (double_from_json(value.get(name)) for name in ("min", "max", "range"))
    if low is None or high is None or width is None:
        return
    target.min, target.max, target.range = low, high, width
    target.SetInParent()
    rest = {name: item for name, item in value.items() if name not in ("min", "max", "range")}
    span = double_from_json(rest.get("span"))
    if span is not None:
        target.span = span
        del rest["span"]
    if rest:
        source[key] = rest
    else:
        del source[key]


__all__ = ["STATS_KEYS", "stats_from_json", "stats_to_json"]
