"""The results of an experiment: their JSON object in a record, and Results."""

from qlog.v1 import common_pb2 as pb
from qlog.v1.records import stderr_key

from collector.records import Json, double_from_json, double_to_json, is_stderr, metrics_of
from collector.wire_values import (
    Typed,
    fields_from_json,
    merge_other,
    take_typed,
    typed_to_json,
)

_HEADLINE: Typed = (("accuracy", "double"), ("perplexity", "double"))
_TASK: Typed = (("n", "int64"), ("num_fewshot", "int32"), ("limit", "double"), ("version", "string"))

RESULTS_KEYS = frozenset(("accuracy", "perplexity", "tasks", "ppl", "fp16"))


def results_to_json(results: pb.Results) -> Json:
    """The record's `results`: accuracy and perplexity always, null where not known."""
    out = typed_to_json(results, _HEADLINE, absent_null=True)
    out["tasks"] = {task.task: _task_to_json(task) for task in results.tasks}
    out["ppl"] = {item.data_set: double_to_json(item.perplexity) for item in results.ppl}
    if results.HasField("fp16"):
        out["fp16"] = results_to_json(results.fp16)
    merge_other(out, results.other)
    return out


def _task_to_json(task: pb.TaskResult) -> Json:
    out: dict[str, Json] = {}
    for metric in task.metrics:
        out[metric.name] = double_to_json(metric.value)
        if metric.HasField("stderr"):
            out[stderr_key(metric.name)] = double_to_json(metric.stderr)
    out |= typed_to_json(task, _TASK, absent_null=True)
    merge_other(out, task.other)
    return out


def results_from_json(value: dict[str, Json], *, baseline: bool = False) -> pb.Results:
    """The inverse of `results_to_json`; what has no field goes to `other`.

    Args:
        baseline: these are the results under `fp16`, which have no such key themselves.
    """
    rest = dict(value)
    results = pb.Results()
    take_typed(results, rest, _HEADLINE)
    tasks = rest.get("tasks")
    if isinstance(tasks, dict):
        results.tasks.extend(_task_from_json(name, item) for name, item in tasks.items() if isinstance(item, dict))
        _keep_rest(rest, "tasks", {name: item for name, item in tasks.items() if not isinstance(item, dict)})
    ppl = rest.get("ppl")
    if isinstance(ppl, dict):
        numbers = {name: double_from_json(item) for name, item in ppl.items()}
        for name, number in numbers.items():
            if number is not None:
                results.ppl.add(data_set=name, perplexity=number)
        _keep_rest(rest, "ppl", {name: item for name, item in ppl.items() if numbers[name] is None})
    fp16 = rest.get("fp16")
    if isinstance(fp16, dict) and not baseline:
        results.fp16.CopyFrom(results_from_json(fp16, baseline=True))
        del rest["fp16"]
    results.other.extend(fields_from_json(rest))
    return results


def _keep_rest(target: dict[str, Json], key: str, rest: dict[str, Json]) -> None:
    if rest:
        target[key] = rest
    else:
        del target[key]


def _task_from_json(name: str, value: dict[str, Json]) -> pb.TaskResult:
    rest = dict(value)
    task = pb.TaskResult(task=name)
    take_typed(task, rest, _TASK)
    # Whole numbers are counts, seeds and the like: a metric is written with its fraction.
    metrics = {key: number for key, number in metrics_of(rest).items() if not isinstance(rest[key], int)}
    for key, number in metrics.items():
        del rest[key]
        if is_stderr(key, metrics):
            continue
        metric = task.metrics.add(name=key, value=number)
        if (stderr := metrics.get(stderr_key(key))) is not None:
            metric.stderr = stderr
    task.other.extend(fields_from_json(rest))
    return task


__all__ = [
    "RESULTS_KEYS",
    "results_from_json",
    "results_to_json",
]
