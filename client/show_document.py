"""One experiment in full: its record as sections, JSON and flat keys."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from qlog.v1.records import TASK_KEYS

from client.annotations import annotations_of
from client.columns import bits, config_text, progress_data, progress_text
from client.documents import Column, Facts, Flat, Output, Row, Section, Table
from client.labels import label
from client.metrics import task_metrics
from client.tensor_tables import reorder_table, tensor_tables, user_table
from client.text import as_text, duration, escape, size
from client.values import Experiment

# Parts of a record that are shown as names and values, with their headings.
_PARTS: Sequence[tuple[str, str, Callable[[Any], str]]] = (
    ("config", "configuration", as_text),
    ("model", "model_facts", as_text),
    ("calibration", "calibration", as_text),
    ("environment", "environment", as_text),
    ("model_size_bytes", "model_size", size),
    ("artifact", "artifact", as_text),
    ("phases", "phases", duration),
    ("dropped", "dropped", as_text),
)
_SHOWN = frozenset(
    (
        *(name for name, _, _ in _PARTS),
        *("timestamp", "command", "status", "error", "duration_s", "experiment_id", "schema_version", "start_time"),
        *("results", "reorder_summary", "activation_stats"),
    )
)


def show_output(experiment: Experiment) -> Output:
    """One experiment, asked for with its tensors' statistics."""
    record = experiment.record
    data = {**record} if experiment.progress is None else {**record, "progress": progress_data(experiment.progress)}
    data |= annotations_of(experiment)
    return Output(
        sections=tuple(_sections(experiment)),
        data=data,
        flat=Flat(("key", "value"), (("number", experiment.number), *flattened(data))),
    )


def _sections(experiment: Experiment) -> Iterator[Section]:
    record = experiment.record
    yield _head(experiment)
    parts = {name: _part(record.get(name), heading, text) for name, heading, text in _PARTS}
    config = record.get("config")
    if isinstance(config, Mapping):
        entries = tuple((escape(key), config_text(key, value)) for key, value in config.items())
        parts["config"] = Facts(entries, label("configuration"))
    first = ("config", "model", "calibration")
    yield from (section for name in first if (section := parts[name]) is not None)
    yield from result_sections(record.get("results"), label("results"))
    tensors = record.get("activation_stats")
    if isinstance(tensors, Mapping):
        yield from tensor_tables(tensors)
    yield from _reorder_sections(record.get("reorder_summary"), tensors)
    if isinstance(tensors, Mapping):
        yield from user_table(tensors)
    yield from (section for name, section in parts.items() if name not in first and section is not None)
    rest = tuple((escape(key), as_text(value)) for key, value in record.items() if key not in _SHOWN)
    if rest:
        yield Facts(rest, label("other"))


def _head(experiment: Experiment) -> Facts:
    record = experiment.record
    entries = (
        ("number_of_line", experiment.number),
        ("id", experiment.experiment_id or None),
        ("time", record.get("timestamp") or None),
        ("status", experiment.status or None),
        ("error", record.get("error")),
        ("progress", None if experiment.progress is None else progress_text(experiment.progress)),
        ("bits", bits(record.get("config") or {})),
        ("duration", None if record.get("duration_s") is None else duration(record["duration_s"])),
        ("command", record.get("command") or None),
        *annotations_of(experiment),
        ("schema_version", record.get("schema_version")),
    )
    told = tuple((label(key), as_text(value)) for key, value in entries if value is not None)
    return Facts(told, f"{label('experiment')} {escape(experiment.name)}")


def _part(value: Any, heading: str, text: Callable[[Any], str]) -> Facts | None:
    if not value:
        return None
    if not isinstance(value, Mapping):
        return Facts((("", as_text(value)),), label(heading))
    return Facts(tuple((escape(key), text(item)) for key, item in value.items()), label(heading))


def result_sections(results: Any, title: str) -> Iterator[Section]:
    """Headline figures, and every metric of every task and data set."""
    if not isinstance(results, Mapping):
        return
    headline = (("accuracy", results.get("accuracy")), ("perplexity", results.get("perplexity")))
    known = {"accuracy", "perplexity", "tasks", "ppl", "fp16"}
    more = [(escape(key), as_text(value)) for key, value in results.items() if key not in known]
    yield Facts((*((label(key), as_text(value)) for key, value in headline), *more), title)
    if rows := tuple(_metric_rows(results)):
        headings = ("task", "metric", "value", "stderr", "documents", "shots", "limit", "version")
        numbers = {"value", "stderr", "documents", "shots", "limit"}
        yield Table(tuple(Column(label(key), key in numbers) for key in headings), rows)
    if "fp16" in results:
        yield from result_sections(results["fp16"], label("results_fp16"))


def _metric_rows(results: Mapping[str, Any]) -> Iterator[Row]:
    tasks, data_sets = results.get("tasks"), results.get("ppl")
    for task, record in (tasks if isinstance(tasks, Mapping) else {}).items():
        if not isinstance(record, Mapping):
            continue
        facts = tuple(as_text(record.get(key)) for key in TASK_KEYS)
        for metric in task_metrics(record):
            yield Row((escape(task), escape(metric.name), as_text(metric.value), as_text(metric.stderr), *facts))
    for name, value in (data_sets if isinstance(data_sets, Mapping) else {}).items():
        yield Row((escape(name), label("perplexity"), as_text(value), *[as_text(None)] * 5))


def _reorder_sections(summary: Any, tensors: Any) -> Iterator[Section]:
    if isinstance(summary, Mapping) and summary.get("enabled"):
        words = {
            "enabled": "enabled",
            "avg_range_reduction": "average_range_reduction",
            "total_layers": "layers_affected",
            "avg_range_reduction_grouping_only": "grouping_only",
        }
        per_cent = {"avg_range_reduction", "avg_range_reduction_grouping_only"}
        entries = (
            (
                label(words[key]) if key in words else escape(key),
                as_text(value) + (" %" if key in per_cent and value is not None else ""),
            )
            for key, value in summary.items()
        )
        yield Facts(tuple(entries), label("reorder_effect"))
    if isinstance(tensors, Mapping):
        yield from reorder_table(tensors)


def flattened(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a value under dotted paths; what is empty is a leaf."""
    if not isinstance(value, Mapping) or not value:
        yield path, value
        return
    for name, item in value.items():
        yield from flattened(item, f"{path}.{name}" if path else str(name))


__all__ = ["flattened", "result_sections", "show_output"]
