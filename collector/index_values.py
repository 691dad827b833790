"""JSON values as SQLite holds them, such that comparisons in SQL mean what they mean on the record.

| JSON | SQLite |
|---|---|
| null, absent | NULL |
| number | INTEGER or REAL; "Infinity" and "-Infinity" are infinite REALs, whole numbers beyond 64 bits are REALs |
| text | TEXT |
| true, false, "NaN" | BLOBs of one byte: t, f, n |
| list, object | BLOB, its JSON |
"""

import math
import re
from collections.abc import Sequence
from datetime import datetime

import orjson

from collector.records import NON_FINITE, Json, Record

Value = None | int | float | str | bytes

TRUE, FALSE, NAN = b"t", b"f", b"n"
_INT64 = range(-(2**63), 2**63)
_WALL = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d(?:\.\d+)?)")

# Paths of the record that have a column of their own, by which most lists are filtered.
HOT: dict[str, str] = {
    "status": "status",
    "timestamp": "timestamp",
    "duration_s": "duration_s",
    "config.model": "model",
    "config.w_bits": "w_bits",
    "config.a_bits": "a_bits",
    "config.percentile_alpha": "percentile_alpha",
    "config.group_heads": "group_heads",
    "config.apply_gptq": "apply_gptq",
    "results.accuracy": "accuracy",
    "results.perplexity": "perplexity",
}


def encode(value: Json) -> Value:
    """A JSON value as SQLite holds it."""
    if value is None:
        return None
    kind = type(value)
    if kind is str:
        if (number := NON_FINITE.get(value)) is not None:  # type: ignore[arg-type]
            return NAN if math.isnan(number) else number
        return value.replace("\0", "\ufffd")  # type: ignore[union-attr]
    if kind is float:
        return value  # type: ignore[return-value]
    if kind is bool:
        return TRUE if value else FALSE
    if kind is int:
        return value if value in _INT64 else float(value)  # type: ignore[arg-type, return-value]
    return orjson.dumps(value)


def lookup(record: Json, keys: Sequence[str]) -> Json:
    """What stands at a path; None where there is nothing."""
    for key in keys:
        if not isinstance(record, dict):
            return None
        record = record.get(key)
    return record


def hot_values(record: Record) -> tuple[Value, ...]:
    """The values of `HOT`, in its order."""
    config, results = record.get("config"), record.get("results")
    config = config if isinstance(config, dict) else {}
    results = results if isinstance(results, dict) else {}
    values = (
        record.get("status"),
        None,
        record.get("duration_s"),
        config.get("model"),
        config.get("w_bits"),
        config.get("a_bits"),
        config.get("percentile_alpha"),
        config.get("group_heads"),
        config.get("apply_gptq"),
        results.get("accuracy"),
        results.get("perplexity"),
    )
    status, _, *others = [value if value is None else encode(value) for value in values]
    return (status, wall_time(record.get("timestamp")), *others)


def wall_time(value: Json) -> Value:
    """A timestamp in the form in which timestamps are compared: YYYY-MM-DD HH:MM:SS."""
    if isinstance(value, str) and (match := _WALL.match(value)):
        return f"{match[1]} {match[2]}"
    return encode(value)


def instant(record: Record) -> float | None:
    """When an experiment began, in seconds since 1970: by its start_time, else by its timestamp as local time here."""
    for key in ("start_time", "timestamp"):
        text = record.get(key)
        if isinstance(text, str):
            try:
                return datetime.fromisoformat(text).timestamp()
            except (ValueError, OverflowError, OSError):
                continue
    return None


def words_of(record: Record, tags: Sequence[str] = (), note: str = "") -> str:
    """What a bare word is looked for in, in lower case: model, command, tags, note."""
    model, command = lookup(record, ("config", "model")), record.get("command")
    parts = [part for part in (model, command, *tags, note) if isinstance(part, str)]
    return "\n".join(parts).lower().replace("\0", "\ufffd")


__all__ = [
    "FALSE",
    "HOT",
    "NAN",
    "TRUE",
    "Value",
    "encode",
    "hot_values",
    "instant",
    "lookup",
    "wall_time",
    "words_of",
]
