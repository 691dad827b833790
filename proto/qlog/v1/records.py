"""Conventions of the record that no message holds: how its JSON spells numbers and the metrics of a task."""

import math
from typing import Final

# Of the record of a task, what is no metric.
TASK_KEYS: Final = ("n", "num_fewshot", "limit", "version")


def stderr_key(metric: str) -> str:
    """Where a metric's standard error stands.

    "acc" has it under "acc_stderr", "exact_match,strict" under "exact_match_stderr,strict".
    """
    base, comma, filter_name = metric.partition(",")
    return f"{base}_stderr{comma}{filter_name}"


def non_finite(value: float) -> str:
    """NaN, Infinity or -Infinity: the strings that stand for the numbers that JSON does not have."""
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


__all__ = ["TASK_KEYS", "non_finite", "stderr_key"]
