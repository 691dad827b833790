"""Jobs to messages: operations, their metadata, what watchers are told."""

import shlex

from google.longrunning import operations_pb2
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import code_pb2, status_pb2
from qlog.v1 import quantizer_pb2 as pb
from qlog.v1.options import default_of
from qlog.v1.spec_pb2 import ExperimentSpec

from quantizer.events import JobEvent, LogLine
from quantizer.job import JobState, JobView
from quantizer.wire import event_message, progress_message, results_message
from quantizer.wire_spec import options_of
from quantizer.wire_values import timestamp_message

OPERATION_PREFIX = "operations/"

# Total: every state of a job.
STATES = {
    JobState.QUEUED: pb.JOB_STATE_QUEUED,
    JobState.RUNNING: pb.JOB_STATE_RUNNING,
    JobState.COMPLETED: pb.JOB_STATE_COMPLETED,
    JobState.FAILED: pb.JOB_STATE_FAILED,
    JobState.CANCELLED: pb.JOB_STATE_CANCELLED,
}


def metadata_message(job: JobView) -> pb.JobMetadata:
    """Where a job stands."""
    return pb.JobMetadata(
        experiment_id=job.experiment_id,
        state=STATES[job.state],
        spec=ExperimentSpec.FromString(job.spec),
        progress=progress_message(job.progress) if job.progress is not None else None,
        create_time=timestamp_message(job.created),
        start_time=timestamp_message(job.started) if job.started is not None else None,
        end_time=timestamp_message(job.ended) if job.ended is not None else None,
        device=job.device,
        queue_position=job.queue_position,
    )


def operation_message(job: JobView) -> operations_pb2.Operation:
    """A job as a long-running operation."""
    operation = operations_pb2.Operation(
        name=OPERATION_PREFIX + job.experiment_id, metadata=_packed(metadata_message(job)), done=job.state.done
    )
    if job.state is JobState.COMPLETED:
        result = pb.JobResult(
            experiment_id=job.experiment_id, summary=job.summary, results=results_message(job.results)
        )
        operation.response.CopyFrom(_packed(result))
    elif job.state is JobState.CANCELLED:
        operation.error.CopyFrom(status_pb2.Status(code=code_pb2.CANCELLED, message=job.error or "cancelled"))
    elif job.state is JobState.FAILED:
        operation.error.CopyFrom(status_pb2.Status(code=code_pb2.ABORTED, message=job.error or "failed"))
    return operation


def watch_message(told: JobEvent | JobView) -> pb.WatchExperimentResponse:
    """One thing that a watcher is told."""
    if isinstance(told, JobView):
        return pb.WatchExperimentResponse(job=metadata_message(told))
    if isinstance(told, LogLine):
        return pb.WatchExperimentResponse(log_line=told.text)
    return pb.WatchExperimentResponse(experiment_event=event_message(told))


def command_of(spec: ExperimentSpec) -> str:
    """The command line that asks for a specification, where the submitter sent none."""
    words = ["quantizer", "run", spec.model]
    for name, value in options_of(spec).items():
        if name == "model" or value in (None, "", False) or str(value) == default_of(name):
            continue
        words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return shlex.join(words)


def _packed(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed


__all__ = ["OPERATION_PREFIX", "STATES", "command_of", "metadata_message", "operation_message", "watch_message"]
