"""From the collector's messages to the client's values; `client.record_wire` makes the records in them."""

from collections.abc import Iterator

from qlog.v1 import collector_pb2, common_pb2

from client import record_wire
from client.values import (
    Cell,
    Comparison,
    ConfigRow,
    Experiment,
    ExperimentEvent,
    ExperimentPage,
    MetricCell,
    MetricRow,
    Progress,
    Record,
    TensorRow,
    WatchBatch,
)


def progress_from(message: common_pb2.Progress) -> Progress:
    """How far a phase has come."""
    return Progress(phase=message.phase, done=message.done, total=message.total, unit=message.unit)


def experiment_from(message: common_pb2.Experiment, *, full: bool = False) -> Experiment:
    """One experiment; `full`: asked for with its tensors' statistics."""
    return Experiment(
        number=message.number if message.HasField("number") else None,
        experiment_id=message.experiment_id,
        status=record_wire.status_name(message.status),
        record=record_wire.experiment_record(message, full=full),
        progress=progress_from(message.progress) if message.HasField("progress") else None,
    )


def page_from(message: collector_pb2.ListExperimentsResponse) -> ExperimentPage:
    """One page of a list."""
    return ExperimentPage(
        experiments=tuple(experiment_from(experiment) for experiment in message.experiments),
        next_token=message.next_page_token,
        total=message.total_size,
    )


def _config_row(message: collector_pb2.ConfigRow) -> ConfigRow:
    cells = tuple(
        Cell(present=True, value=record_wire.json_value(cell.value)) if cell.HasField("value") else Cell(present=False)
        for cell in message.cells
    )
    return ConfigRow(key=message.key, cells=cells, differs=message.differs)


def _metric_cell(message: collector_pb2.MetricCell) -> MetricCell:
    names = ("value", "stderr", "difference", "difference_stderr", "exceeds_stderr")
    known = record_wire.present(message, names)
    return MetricCell(**{"value": None, **known})


def _metric_row(message: collector_pb2.MetricRow) -> MetricRow:
    return MetricRow(
        name=message.name,
        is_fraction=message.unit == collector_pb2.METRIC_UNIT_FRACTION,
        cells=tuple(_metric_cell(cell) for cell in message.cells),
        differs=message.differs,
    )


def _tensor_row(message: collector_pb2.TensorRow) -> TensorRow:
    cells = tuple(record_wire.tensor_record(cell.stats) if cell.HasField("stats") else None for cell in message.cells)
    return TensorRow(name=message.name, cells=cells, differs=message.differs)


def comparison_from(message: collector_pb2.CompareExperimentsResponse) -> Comparison:
    """Experiments side by side."""
    return Comparison(
        experiments=tuple(experiment_from(experiment) for experiment in message.experiments),
        config=tuple(_config_row(row) for row in message.config),
        results=tuple(_metric_row(row) for row in message.results),
        tensors=tuple(_tensor_row(row) for row in message.tensors),
    )


def _event_record(event: common_pb2.Event) -> Record:
    match event.WhichOneof("event"):
        case "begin":
            begin = event.begin
            return {
                "timestamp": begin.timestamp,
                "command": begin.command,
                "config": record_wire.config_record(begin.config),
                "environment": record_wire.json_object(begin.environment),
            }
        case "layer_stats":
            return {"name": event.layer_stats.name, **record_wire.tensor_record(event.layer_stats)}
        case "progress":
            progress = event.progress
            return {name: getattr(progress, name) for name in ("phase", "done", "total", "unit")}
        case "facts":
            return record_wire.facts_record(event.facts)
        case "evaluation_result":
            return {"results": record_wire.results_record(event.evaluation_result.results)}
        case "reorder_summary":
            return record_wire.reorder_summary_record(event.reorder_summary)
        case "finish":
            finish = event.finish
            return {
                "status": record_wire.status_name(finish.status),
                "error": finish.error or None,
                "duration_s": finish.duration_s,
                "phases": record_wire.phases_record(finish.phases),
            }
        case _:
            return {}


def event_from(experiment_id: str, offset: int | None, message: common_pb2.Event) -> ExperimentEvent | None:
    """What happened; None for a heartbeat and for kinds that this version does not know."""
    kind = message.WhichOneof("event")
    if kind is None or kind == "heartbeat":
        return None
    return ExperimentEvent(experiment_id=experiment_id, offset=offset, kind=kind, data=_event_record(message))


def _events(message: collector_pb2.WatchExperimentsResponse) -> Iterator[ExperimentEvent]:
    for position, event in enumerate(message.events, start=message.offset):
        if (value := event_from(message.experiment_id, position, event)) is not None:
            yield value


def batch_from(message: collector_pb2.WatchExperimentsResponse) -> WatchBatch:
    """Events that arrived together."""
    return WatchBatch(
        experiment_id=message.experiment_id,
        events=tuple(_events(message)),
        resume_token=message.resume_token,
        ended=experiment_from(message.ended) if message.HasField("ended") else None,
    )


__all__ = [
    "batch_from",
    "comparison_from",
    "event_from",
    "experiment_from",
    "page_from",
    "progress_from",
]
