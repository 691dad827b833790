"""From the collector's messages to the client's values; `client.record_wire` makes the records in them."""

from qlog.v1 import collector_pb2, common_pb2

from client import record_wire
from client.values import Experiment, ExperimentPage, Progress


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
        tags=tuple(message.tags),
        note=message.note,
        archived=message.archived,
        amended=message.amended,
    )


def page_from(message: collector_pb2.ListExperimentsResponse) -> ExperimentPage:
    """One page of a list."""
    return ExperimentPage(
        experiments=tuple(experiment_from(experiment) for experiment in message.experiments),
        next_token=message.next_page_token,
        total=message.total_size,
    )


__all__ = ["experiment_from", "page_from", "progress_from"]
