"""How a task's metrics stand in its record: numbers by name, the standard error of each beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qlog.v1.records import TASK_KEYS, stderr_key


@dataclass(frozen=True, slots=True)
class TaskMetric:
    """One metric of a task; `stderr` is None where there is none."""

    name: str
    value: Any
    stderr: Any = None


def task_metrics(task: Mapping[str, Any]) -> tuple[TaskMetric, ...]:
    """The metrics of a task's record, in its order."""
    candidates = {name: value for name, value in task.items() if name not in TASK_KEYS}
    errors = {stderr_key(name) for name in candidates}
    return tuple(
        TaskMetric(name, value, candidates.get(stderr_key(name)))
        for name, value in candidates.items()
        if name not in errors and isinstance(value, int | float)
    )


__all__ = ["TaskMetric", "task_metrics"]
