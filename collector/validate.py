"""What a batch of events must be to be stored: everything that arrives is hostile.

Bounds are on sizes, counts and depths alone. What is written in strings is not judged: control characters are stored
(escaped by JSON), and who shows them escapes them.
"""

import re
from collections.abc import Iterable, Sequence

from qlog.v1 import common_pb2 as pb
from qlog.v1.records import TASK_KEYS

from collector import limits
from collector.errors import InvalidRequestError
from collector.records import metric_of_stderr
from collector.wire import CONFIG_KEYS, REORDER_KEYS
from collector.wire_results import RESULTS_KEYS
from collector.wire_stats import STATS_KEYS

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z, as google.protobuf.Timestamp has it.
_FIRST_SECOND, _LAST_SECOND = -62135596800, 253402300799
_FINAL = (
    pb.EXPERIMENT_STATUS_COMPLETED,
    pb.EXPERIMENT_STATUS_FAILED,
    pb.EXPERIMENT_STATUS_CANCELLED,
    pb.EXPERIMENT_STATUS_LOST,
)


def check_experiment_id(experiment_id: str, field: str = "experiment_id") -> str:
    """The id in its one form: a UUID in lower case with hyphens.

    Raises:
        InvalidRequestError: it is no UUID.
    """
    lower = experiment_id.lower()
    if not _UUID.fullmatch(lower):
        raise InvalidRequestError(field, f"{field} is {experiment_id[:64]!r}, not a UUID")
    return lower


def check_length(text: str, most: int, field: str) -> None:
    """Refuse what is longer than it may be.

    Raises:
        InvalidRequestError: it is.
    """
    if len(text) > most:
        raise InvalidRequestError(field, f"{field} has {len(text)} characters, at most {most}")


def check_place(kind: str | None, offset: int, place: int, *, last: bool) -> None:
    """Check that begin is the first event of an experiment, and finish the last of a request.

    Args:
        kind: of the event; None for one that this version does not know.
        offset: of the request.
        place: of the event in it.
        last: it is the last one there.

    Raises:
        InvalidRequestError: names the field.
    """
    if (kind == "begin") != (offset + place == 0):
        wrong = "begin is only the first event" if kind == "begin" else "the first event has to be begin"
        raise InvalidRequestError(f"events[{place}]", f"{wrong}; this one is {kind} at position {offset + place}")
    if kind == "finish" and not last:
        raise InvalidRequestError(f"events[{place}]", "finish has to be the last event")


def check_event(event: pb.Event, kind: str | None, place: int) -> None:
    """Check one event.

    Args:
        event: with its kind; None for one that this version does not know.
        kind: of it.
        place: in its request.

    Raises:
        InvalidRequestError: names the field.
    """
    where = f"events[{place}].{kind}"
    if kind == "layer_stats":
        _check_stats(event.layer_stats, where)
    elif kind == "begin":
        _check_begin(event.begin, where)
    elif kind == "progress":
        _check_names(where, phase=event.progress.phase, unit=event.progress.unit)
    elif kind == "facts":
        for name in ("model", "calibration", "model_size_bytes", "artifact", "environment"):
            check_fields(getattr(event.facts, name), f"{where}.{name}")
    elif kind == "evaluation_result":
        _check_results(event.evaluation_result.results, f"{where}.results")
    elif kind == "reorder_summary":
        check_fields(event.reorder_summary.other, f"{where}.other", REORDER_KEYS)
    elif kind == "finish":
        _check_finish(event.finish, where)


def _check_stats(stats: pb.LayerStats, where: str) -> None:
    if not stats.name:
        raise InvalidRequestError(f"{where}.name", "a tensor without a name")
    _check_names(where, name=stats.name, observer=stats.observer)
    _check_text(stats.reorder.definition, f"{where}.reorder.definition")
    check_fields(stats.other, f"{where}.other", STATS_KEYS)


def _check_begin(begin: pb.Begin, where: str) -> None:
    _check_names(where, timestamp=begin.timestamp)
    _check_text(begin.command, f"{where}.command")
    _check_text(begin.config.model, f"{where}.config.model")
    seconds, nanos = begin.start_time.seconds, begin.start_time.nanos
    if not (_FIRST_SECOND <= seconds <= _LAST_SECOND and 0 <= nanos < 10**9):
        raise InvalidRequestError(f"{where}.start_time", f"start_time of {seconds} s and {nanos} ns is no moment")
    check_fields(begin.config.other, f"{where}.config.other", CONFIG_KEYS)
    check_fields(begin.environment, f"{where}.environment")


def _check_results(results: pb.Results, where: str, *, baseline: bool = False) -> None:
    _check_count(results.tasks, limits.MAX_TASKS, f"{where}.tasks")
    _check_count(results.ppl, limits.MAX_TASKS, f"{where}.ppl")
    for task in results.tasks:
        _check_task(task, f"{where}.tasks[{task.task[:64]}]")
    for item in results.ppl:
        _check_names(f"{where}.ppl", data_set=item.data_set)
    check_fields(results.other, f"{where}.other", RESULTS_KEYS)
    if results.HasField("fp16"):
        if baseline:
            raise InvalidRequestError(f"{where}.fp16", "the baseline's results have no baseline")
        _check_results(results.fp16, f"{where}.fp16", baseline=True)


def _check_task(task: pb.TaskResult, where: str) -> None:
    _check_names(where, task=task.task, version=task.version)
    _check_count(task.metrics, limits.MAX_METRICS, f"{where}.metrics")
    names = {metric.name for metric in task.metrics}
    for metric in task.metrics:
        _check_names(where, metric=metric.name)
        if metric.name in TASK_KEYS or metric_of_stderr(metric.name) in names:
            raise InvalidRequestError(f"{where}.metrics", f"{metric.name!r} cannot be a metric's name here")
    check_fields(task.other, f"{where}.other", names.union(TASK_KEYS))


def _check_finish(finish: pb.Finish, where: str) -> None:
    if finish.status not in _FINAL:
        raise InvalidRequestError(f"{where}.status", f"an experiment cannot finish with status {finish.status}")
    _check_text(finish.error, f"{where}.error")
    _check_count(finish.phases, limits.MAX_FIELDS, f"{where}.phases")
    _check_count(finish.dropped, limits.MAX_FIELDS, f"{where}.dropped")
    for phase in finish.phases:
        _check_names(where, phase=phase.phase)
    for dropped in finish.dropped:
        _check_names(where, kind=dropped.kind)
    check_fields(finish.reorder_summary.other, f"{where}.reorder_summary.other", REORDER_KEYS)


def check_fields(fields: Sequence[pb.Field], where: str, taken: Iterable[str] = ()) -> None:
    """Check named values.

    Args:
        fields: of `other`, `environment`, ...
        where: their path in the request.
        taken: names that have fields of their own beside these.

    Raises:
        InvalidRequestError: too many, too deep, or a name that is empty, too long, twice there or taken.
    """
    _check_object(fields, where, limits.MAX_VALUE_DEPTH, set(taken))


def _check_object(fields: Sequence[pb.Field], where: str, depth: int, seen: set[str]) -> None:
    _check_count(fields, limits.MAX_FIELDS, where)
    for field in fields:
        if not field.name:
            raise InvalidRequestError(where, f"{where}: a key without a name")
        _check_names(where, name=field.name)
        if field.name in seen:
            raise InvalidRequestError(where, f"{where}: {field.name!r} is there twice, or has a field of its own")
        seen.add(field.name)
        _check_value(field.value, where, depth)


def _check_value(value: pb.Value, where: str, depth: int) -> None:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        _check_text(value.string_value, where)
    elif kind in ("list_value", "object_value"):
        if depth == 0:
            raise InvalidRequestError(where, f"{where}: nested deeper than {limits.MAX_VALUE_DEPTH}")
        if kind == "object_value":
            _check_object(value.object_value.fields, where, depth - 1, set())
        for item in value.list_value.values if kind == "list_value" else ():
            _check_value(item, where, depth - 1)


def _check_names(where: str, **names: str) -> None:
    for key, name in names.items():
        if len(name) > limits.MAX_NAME_BYTES or len(name.encode()) > limits.MAX_NAME_BYTES:
            raise InvalidRequestError(f"{where}.{key}", f"{where}.{key} is longer than {limits.MAX_NAME_BYTES} bytes")


def _check_text(text: str, where: str) -> None:
    if len(text.encode()) > limits.MAX_TEXT_BYTES:
        raise InvalidRequestError(where, f"{where} is longer than {limits.MAX_TEXT_BYTES} bytes")


def _check_count(items: Sequence[object], most: int, where: str) -> None:
    if len(items) > most:
        raise InvalidRequestError(where, f"{where}: {len(items)} entries, at most {most}")


__all__ = ["check_event", "check_experiment_id", "check_fields", "check_length", "check_place"]
