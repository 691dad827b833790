"""Events from the wire to the client's values."""

from collections.abc import Iterator

from qlog.v1 import collector_pb2, common_pb2

from client import record_wire
from client.events import ExperimentEvent, WatchBatch
from client.values import Record
from client.wire import experiment_from


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


__all__ = ["batch_from", "event_from"]
