"""How a task's metrics stand in its record: numbers by name, the standard error of each beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Of the record of a task, what is no metric.
TASK_KEYS = ("n", "num_fewshot", "limit", "version")


@dataclass(frozen=True, slots=True)
class TaskMetric:
    """One metric of a task; `stderr` is None where there is none."""

    name: str
    value: Any
    stderr: Any = None


def stderr_key(metric: str) -> str:
    """Where a metric's standard error stands.

    "acc" has it under "acc_stderr", "exact_match,strict" under "exact_match_stderr,strict".
    """
    base, comma, filter_name = metric.partition(",")
    return f"{base}_stderr{comma}{filter_name}"


def task_metrics(task: Mapping[str, Any]) -> tuple[TaskMetric, ...]:
    """The metrics of a task's record, in its order."""
    candidates = {name: value for name, value in task.items() if name not in TASK_KEYS}
    errors = {stderr_key(name) for name in candidates}
    return tuple(
        TaskMetric(name, value, candidates.get(stderr_key(name)))
        for name, value in candidates.items()
        if name not in errors and isinstance(value, int | float)
    )


__all__ = ["TASK_KEYS", "TaskMetric", "stderr_key", "task_metrics"]
