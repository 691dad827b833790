"""What happens in an experiment, as lines for people and as JSON."""

from collections.abc import Iterator, Mapping
from typing import Any

from client.columns import alpha_of, alpha_text, bits, experiment_data, progress_text
from client.events import ExperimentEvent
from client.labels import label
from client.metrics import task_metrics
from client.tensor_tables import interval_text, range_of
from client.text import as_text, duration, escape, fixed, percent, size
from client.values import Experiment, Progress, Record


def event_data(event: ExperimentEvent) -> dict[str, Any]:
    """One event in JSON."""
    return {"experiment_id": event.experiment_id, "offset": event.offset, "event": event.kind, **event.data}


def ended_data(experiment: Experiment) -> dict[str, Any]:
    """The end of an experiment in JSON."""
    return {"event": "ended", **experiment_data(experiment)}


def progress_of(event: ExperimentEvent) -> Progress | None:
    """The progress that an event tells, if it tells one."""
    if event.kind != "progress":
        return None
    data = event.data
    return Progress(phase=data["phase"], done=data["done"], total=data["total"], unit=data["unit"])


def event_text(event: ExperimentEvent) -> str | None:
    """One event in one line; None where it tells people nothing."""
    data = event.data
    match event.kind:
        case "begin":
            return _begin_text(data)
        case "layer_stats":
            return _tensor_text(data)
        case "progress":
            progress = progress_of(event)
            return None if progress is None else progress_text(progress)
        case "facts":
            return "; ".join(f"{escape(part)}: {_fact_text(part, value)}" for part, value in data.items()) or None
        case "evaluation_result":
            return "; ".join(_result_texts(data["results"])) or None
        case "reorder_summary" if data["enabled"]:
            average = data["avg_range_reduction"]
            shown = as_text(average) if average is None else f"{as_text(average)} %"
            return (
                f"{label('reorder_effect')}: {label('layers_affected')} {data['total_layers']}, "
                f"{label('average_range_reduction')} {shown}"
            )
        case _:
            # The end is told of the experiment that ended.
            return None


def _fact_text(part: str, value: Any) -> str:
    if part == "model_size_bytes" and isinstance(value, Mapping):
        value = {name: size(count) for name, count in value.items()}
    return as_text(value)


def _begin_text(data: Record) -> str:
    config: Mapping[str, Any] = data["config"]
    known = (
        as_text(config.get("model")),
        bits(config),
        f"{label('alpha')} {alpha_text(alpha_of(config))}",
    )
    return " ".join(part for part in known if part)


def _tensor_text(data: Record) -> str:
    before, after = (
        f"{as_text(range_of(data, key))} {interval_text(data.get(key))}"
        for key in ("before_percentile", "after_percentile")
    )
    return (
        f"{escape(data['name'])}: {label('range_before')} {before}, {label('range_after')} {after}, "
        f"{label('range_reduction')} {percent(data.get('range_reduction'))}, "
        f"{label('clipped')} {percent(data.get('measured_clipped_ratio', data.get('clipped_ratio')), 4)}"
    )


def _result_texts(results: Record, before: str = "") -> Iterator[str]:
    for task, record in results["tasks"].items():
        for metric in task_metrics(record):
            error = "" if metric.stderr is None else f" ± {fixed(metric.stderr, 4)}"
            yield f"{before}{escape(task)} {escape(metric.name)} {fixed(metric.value, 4)}{error}"
    for data_set, value in results["ppl"].items():
        yield f"{before}{escape(data_set)} {label('perplexity')} {fixed(value, 3)}"
    if "fp16" in results:
        yield from _result_texts(results["fp16"], f"{label('unquantized')} ")


def ended_text(experiment: Experiment) -> str:
    """How an experiment ended, in one line."""
    record = experiment.record
    results: Mapping[str, Any] = record.get("results") or {}
    figures = (
        *(
            f"{label(key)} {fixed(results[key], places)}"
            for key, places in (("accuracy", 4), ("perplexity", 3))
            if results.get(key) is not None
        ),
        *((f"in {duration(record['duration_s'])}",) if record.get("duration_s") is not None else ()),
    )
    number = "" if experiment.number is None else f" as number {experiment.number}"
    error = f": {escape(str(record['error']))}" if record.get("error") else ""
    return f"{experiment.status or label('ended')}{number}{error}" + (f" ({', '.join(figures)})" if figures else "")


__all__ = ["ended_data", "ended_text", "event_data", "event_text", "progress_of"]
