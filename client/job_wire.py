"""From the quantizer's messages to the client's values."""

from dataclasses import replace

from google.longrunning import operations_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from qlog.v1 import quantizer_pb2

from client import record_wire
from client.event_wire import event_from
from client.jobs import Job, JobEvent, LogLine
from client.values import Record
from client.wire import progress_from

_STATE_PREFIX = "JOB_STATE_"


def _state_name(state: quantizer_pb2.JobState) -> str:
    known = quantizer_pb2.JobState.DESCRIPTOR.values_by_number.get(state)
    if known is None:
        return str(state)
    return known.name.removeprefix(_STATE_PREFIX) if known.number else ""


def _seconds(metadata: quantizer_pb2.JobMetadata, key: str) -> float | None:
    if not metadata.HasField(key):
        return None
    time: Timestamp = getattr(metadata, key)
    return time.seconds + time.nanos / 1e9


def job_from(name: str, metadata: quantizer_pb2.JobMetadata) -> Job:
    """A job as its metadata tells it, without outcome."""
    spec: Record = {field.name: value for field, value in metadata.spec.ListFields()}
    state = _state_name(metadata.state)
    return Job(
        name=name,
        experiment_id=metadata.experiment_id or name.rpartition("/")[2],
        state=state,
        done=state in {"COMPLETED", "FAILED", "CANCELLED"},
        spec=spec,
        progress=progress_from(metadata.progress) if metadata.HasField("progress") else None,
        device=metadata.device,
        queue_position=metadata.queue_position,
        create_time=_seconds(metadata, "create_time"),
        start_time=_seconds(metadata, "start_time"),
        end_time=_seconds(metadata, "end_time"),
    )


def job_from_operation(operation: operations_pb2.Operation) -> Job:
    """A job with its outcome; without metadata that can be read, what its operation alone tells."""
    metadata = quantizer_pb2.JobMetadata()
    operation.metadata.Unpack(metadata)
    job = job_from(operation.name, metadata)
    result = quantizer_pb2.JobResult()
    known = operation.HasField("response") and operation.response.Unpack(result)
    return replace(
        job,
        done=operation.done,
        error=operation.error.message if operation.HasField("error") else "",
        summary=result.summary,
        results=record_wire.results_record(result.results) if known else None,
    )


def job_event_from(name: str, message: quantizer_pb2.WatchExperimentResponse) -> JobEvent | None:
    """What a job's stream tells; None for a heartbeat and for kinds that this version does not know."""
    match message.WhichOneof("event"):
        case "experiment_event":
            return event_from(name.rpartition("/")[2], None, message.experiment_event)
        case "log_line":
            return LogLine(message.log_line)
        case "job":
            return job_from(name, message.job)
        case _:
            return None


__all__ = ["job_event_from", "job_from", "job_from_operation"]
