"""What a record is, apart from any file and any wire: a JSON object with known keys.

A number that is not finite is one of the strings "NaN", "Infinity", "-Infinity". A task's result holds its metrics,
each one's standard error beside it, and four facts.
"""

import math
from collections.abc import Mapping

from qlog.v1.records import TASK_KEYS, non_finite

# Keys keep their order.
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Record = dict[str, Json]

SCHEMA_VERSION = 1
# How many events an experiment sent: by it repeats are recognized after the events themselves are gone.
EVENTS_KEY = "events"
# True in a line that was given to an experiment because nothing was heard of it any more: it may be completed yet.
UNFINISHED_KEY = "unfinished"
NON_FINITE: Mapping[str, float] = {non_finite(value): value for value in (math.nan, math.inf, -math.inf)}


def double_to_json(value: float) -> Json:
    """A double as JSON has it."""
    if math.isfinite(value):
        return value
    return non_finite(value)


def double_from_json(value: Json) -> float | None:
    """A JSON value as a double; None where it is none (or is a whole number that a double cannot hold)."""
    if isinstance(value, float):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if int(float(value)) == value else None
    return NON_FINITE.get(value) if isinstance(value, str) else None


def metric_of_stderr(key: str) -> str | None:
    """The metric whose standard error would stand under this key, if its form is that of one (see `stderr_key`)."""
    base, comma, filter_name = key.partition(",")
    return f"{base.removesuffix('_stderr')}{comma}{filter_name}" if base.endswith("_stderr") else None


def is_stderr(key: str, metrics: Mapping[str, float]) -> bool:
    """Whether a number of a task is the standard error of another one there."""
    metric = metric_of_stderr(key)
    return metric is not None and metric in metrics and not is_stderr(metric, metrics)


def metrics_of(task: Mapping[str, Json]) -> dict[str, float]:
    """A task's numbers that are metrics or their standard errors (`is_stderr` tells which)."""
    numbers = {key: double_from_json(item) for key, item in task.items() if key not in TASK_KEYS}
    return {key: number for key, number in numbers.items() if number is not None}


__all__ = [
    "EVENTS_KEY",
    "NON_FINITE",
    "SCHEMA_VERSION",
    "UNFINISHED_KEY",
    "Json",
    "Record",
    "double_from_json",
    "double_to_json",
    "is_stderr",
    "metric_of_stderr",
    "metrics_of",
]
