"""The columns of a list of experiments."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from client.annotations import annotations_of
from client.documents import Column, Flat, Output, Row, Section, Table
from client.labels import label
from client.text import as_text, duration, escape, fixed
from client.values import COMPLETED, CORRUPT, RUNNING, Experiment, Progress, short_id_length


@dataclass(frozen=True, slots=True)
class ListColumn:
    """One column.

    Attributes:
        name: as --columns takes it, and in CSV.
        value: the plain value of an experiment.
        text: what a table shows of that value.
        right: numbers stand at the right.
    """

    name: str
    value: Callable[[Experiment], Any]
    text: Callable[[Any], str] = as_text
    right: bool = False
    heading: str = ""


def at(value: Any, path: str) -> Any:
    """What stands under a dotted path, whose names may have dots themselves; None where there is nothing."""
    if not path:
        return value
    if not isinstance(value, Mapping):
        return None
    for key in value:
        rest = path.removeprefix(key) if path.startswith(key) else None
        if rest == "" or (rest is not None and rest.startswith(".")):
            found = at(value[key], rest[1:])
            if found is not None:
                return found
    return None


def bits(config: Mapping[str, Any]) -> str | None:
    """W8A8; W4AX where layers differ; "float" where nothing is quantized; None where not known."""
    if config.get("quantize") is False and not config.get("stored"):
        return "float"
    weights, activations = config.get("w_bits"), "X" if config.get("hybrid_blocks") else config.get("a_bits")
    if weights is None and activations is None:
        return None
    return f"W{'?' if weights is None else weights}A{'?' if activations is None else activations}"


def alpha_text(alpha: Any) -> str:
    """An alpha as the user gave it; the default where none was given."""
    return "default" if alpha is None else as_text(alpha)


def alpha_of(config: Mapping[str, Any]) -> Any:
    """The alpha of a configuration; "auto" where one was looked for."""
    return config.get("alpha_search") or config.get("percentile_alpha")


def config_text(key: str, value: Any) -> str:
    """One entry of a configuration."""
    return alpha_text(value) if key == "percentile_alpha" else as_text(value)


def progress_text(progress: Progress) -> str:
    """Phase and how far it has come: "calibrate 12/512 documents"."""
    of = f"/{progress.total}" if progress.total else ""
    count = f" {progress.done}{of} {progress.unit}".rstrip() if progress.total or progress.done else ""
    return escape(f"{progress.phase}{count}")


def _status(experiment: Experiment) -> Any:
    if experiment.status == RUNNING and experiment.progress is not None:
        return f"{RUNNING} {progress_text(experiment.progress)}"
    return experiment.status or None


def _in(path: str) -> Callable[[Experiment], Any]:
    return lambda experiment: at(experiment.record, path)


def _accuracy(value: Any) -> str:
    return fixed(value, 4)


def _perplexity(value: Any) -> str:
    return fixed(value, 3)


COLUMNS: Mapping[str, ListColumn] = {
    column.name: column
    for column in (
        ListColumn("number", lambda experiment: experiment.number, right=True),
        ListColumn("id", lambda experiment: experiment.experiment_id or None),
        ListColumn("time", lambda experiment: experiment.record.get("timestamp") or None),
        ListColumn("model", _in("config.model")),
        ListColumn("bits", lambda experiment: bits(experiment.record.get("config") or {})),
        ListColumn("alpha", lambda experiment: alpha_of(experiment.record.get("config") or {}), alpha_text, right=True),
        ListColumn("grouping", _in("config.group_heads")),
        ListColumn("gptq", _in("config.apply_gptq")),
        ListColumn("accuracy", _in("results.accuracy"), _accuracy, right=True),
        ListColumn("perplexity", _in("results.perplexity"), _perplexity, right=True),
        ListColumn("status", _status),
        ListColumn("duration", _in("duration_s"), duration, right=True),
        ListColumn("tags", lambda experiment: list(experiment.tags) or None),
        ListColumn("note", lambda experiment: experiment.note or None),
        ListColumn("archived", lambda experiment: experiment.archived),
    )
}
# Beside these, tags where an experiment has any.
DEFAULT_COLUMNS = tuple(name for name in COLUMNS if name not in {"tags", "note", "archived"})


def default_columns(experiments: Sequence[Experiment]) -> tuple[ListColumn, ...]:
    """The columns of a list where none were asked for."""
    tagged = ("tags",) if any(experiment.tags for experiment in experiments) else ()
    return tuple(COLUMNS[name] for name in (*DEFAULT_COLUMNS, *tagged))


def column_for(name: str) -> ListColumn | None:
    """The column of a name, or of a dotted path into the record such as config.calib_seqlen; None: no such column."""
    if name in COLUMNS:
        return COLUMNS[name]
    if "." in name.strip("."):
        return ListColumn(name, _in(name), heading=escape(name))
    return None


def list_output(
    experiments: Sequence[Experiment],
    columns: Sequence[ListColumn],
    *,
    all_data: bool,
    sections: Sequence[Section] = (),
) -> Output:
    """A list of experiments.

    Args:
        all_data: JSON has everything of each experiment, rather than the columns.
        sections: instead of the table, where there are none.
    """
    values = [tuple(column.value(experiment) for column in columns) for experiment in experiments]
    id_length = short_id_length(experiment.experiment_id for experiment in experiments)
    rows = tuple(
        Row(
            tuple(
                _text(column, value[:id_length] if column.name == "id" and value else value, experiment)
                for column, value in zip(columns, row, strict=True)
            ),
            style="" if experiment.status == COMPLETED else experiment.status,
        )
        for experiment, row in zip(experiments, values, strict=True)
    )
    headings = tuple(Column(column.heading or label(column.name), column.right) for column in columns)
    names = tuple(column.name for column in columns)
    data: Any = [experiment_data(experiment) for experiment in experiments]
    if not all_data:
        data = [dict(zip(names, row, strict=True)) for row in values]
    return Output(tuple(sections) or (Table(headings, rows),), data, Flat(names, values))


def _text(column: ListColumn, value: Any, experiment: Experiment) -> str:
    # Of a damaged line nothing is known, not even that something was left at its default.
    return as_text(value) if experiment.status == CORRUPT else column.text(value)


def experiment_data(experiment: Experiment) -> dict[str, Any]:
    """One entry of a list in JSON."""
    record = experiment.record
    first = {
        "number": experiment.number,
        "experiment_id": experiment.experiment_id or None,
        "timestamp": record.get("timestamp"),
        "status": experiment.status or None,
        **{name: record.get(name) for name in ("config", "results", "reorder_summary", "duration_s")},
    }
    more = dict(annotations_of(experiment))
    progress = {} if experiment.progress is None else {"progress": progress_data(experiment.progress)}
    return {**first, **progress, **more, **{name: value for name, value in record.items() if name not in first}}


def progress_data(progress: Progress) -> dict[str, Any]:
    """A progress in JSON."""
    return {name: getattr(progress, name) for name in ("phase", "done", "total", "unit")}


__all__ = [
    "COLUMNS",
    "ListColumn",
    "alpha_of",
    "alpha_text",
    "at",
    "bits",
    "column_for",
    "config_text",
    "default_columns",
    "experiment_data",
    "list_output",
    "progress_data",
    "progress_text",
]
