"""QuantizerService and google.longrunning.Operations over the jobs."""

import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NoReturn

import grpc
from google.longrunning import operations_pb2
from google.longrunning.operations_pb2_grpc import OperationsServicer
from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from qlog.v1 import quantizer_pb2 as pb
from qlog.v1.quantizer_pb2_grpc import QuantizerServiceServicer
from qlog.v1.serving.statuses import fitting

from quantizer.devices import Device, serves
from quantizer.errors import SpecError, Violation
from quantizer.ids import new_experiment_id
from quantizer.job import Job, JobState, JobView, QueueFullError, RequestReusedError, StoppingError
from quantizer.job_wire import OPERATION_PREFIX, command_of, operation_message, watch_message
from quantizer.jobs import Jobs
from quantizer.model_list import list_models
from quantizer.roots import Roots
from quantizer.surroundings import examine
from quantizer.wire_spec import config_of

DOMAIN = "qlog.quantizer"
MOST_COMMAND = 8192
MOST_STREAMS = 40
DEFAULT_PAGE, MOST_PAGE = 50, 1000
RETRY_S = 5
MOST_WAIT_S = 600.0


class Streams:
    """How many calls may hold a thread for long, so that short ones always find one."""

    def __init__(self, most: int = MOST_STREAMS) -> None:
        self._free = threading.BoundedSemaphore(most)

    def enter(self, context: grpc.ServicerContext) -> None:
        """Take a place, or end the call."""
        if not self._free.acquire(blocking=False):
            abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHERS", "too many calls watch already")

    def leave(self) -> None:
        """Give it back."""
        self._free.release()


@dataclass(frozen=True)
class Quantizer(QuantizerServiceServicer):
    """The service."""

    jobs: Jobs
    devices: tuple[Device, ...]
    roots: Roots
    streams: Streams = field(default_factory=Streams)

    def SubmitExperiment(
        self, request: pb.SubmitExperimentRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        """Validate the whole specification, queue it, return at once."""
        spec = request.spec.SerializeToString(deterministic=True)
        try:
            violations = _frame_violations(request)
            if violations:
                raise SpecError(violations)
            earlier = self.jobs.submitted(request.request_id, spec)
            if earlier is not None:
                return operation_message(earlier)
            config = config_of(request.spec)
            if not any(serves(config.device, device.name) for device in self.devices):
                names = ", ".join(device.name for device in self.devices)
                raise SpecError((Violation("device", f"device {config.device} is not served here: {names}, or auto"),))
            config = examine(config, self.roots)
            command = request.command or command_of(request.spec)
            job = Job(new_experiment_id(), config, spec, command, request.request_id)
            return operation_message(self.jobs.submit(job))
        except SpecError as error:
            prefixed = tuple(
                replace(violation, field=violation.field if violation.field in _FRAME else f"spec.{violation.field}")
                for violation in error.violations
            )
            abort(context, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SPEC", str(error), violations=prefixed)
        except RequestReusedError as error:
            violation = Violation("request_id", str(error))
            abort(context, grpc.StatusCode.ALREADY_EXISTS, "REQUEST_REUSED", str(error), violations=(violation,))
        except QueueFullError as error:
            abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", str(error), retry=True)
        except StoppingError as error:
            abort(context, grpc.StatusCode.UNAVAILABLE, "STOPPING", str(error), retry=True)

    def WatchExperiment(
        self, request: pb.WatchExperimentRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchExperimentResponse]:
        """Everything that a job has told and tells, until it ends."""
        job = _find(self.jobs, request.name, context)
        self.streams.enter(context)
        try:
            for told in self.jobs.watch(job.experiment_id, context.is_active):
                yield watch_message(told)
        finally:
            self.streams.leave()

    def ListDevices(
        self,
        request: pb.ListDevicesRequest,  # noqa: ARG002 - gRPC's signature
        context: grpc.ServicerContext,  # noqa: ARG002
    ) -> pb.ListDevicesResponse:
        """The devices, and what runs on them."""
        running = {job.device: job.experiment_id for job in self.jobs.all() if job.state is JobState.RUNNING}
        return pb.ListDevicesResponse(
            devices=[
                pb.Device(
                    name=device.name,
                    description=device.description,
                    memory_bytes=device.memory_bytes,
                    experiment_id=running.get(device.name, ""),
                )
                for device in self.devices
            ]
        )

    def ListModels(
        self,
        request: pb.ListModelsRequest,  # noqa: ARG002 - gRPC's signature
        context: grpc.ServicerContext,  # noqa: ARG002
    ) -> pb.ListModelsResponse:
        """The models below the model root."""
        models = [
            pb.Model(name=model.name, family=model.family, size_bytes=model.size_bytes)
            for model in list_models(self.roots.models)
        ]
        return pb.ListModelsResponse(models=models, model_root=str(self.roots.models))


@dataclass(frozen=True)
class Operations(OperationsServicer):  # type: ignore[misc]  # the generated class has no types
    """Jobs as long-running operations."""

    jobs: Jobs
    streams: Streams

    def GetOperation(
        self, request: operations_pb2.GetOperationRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        """One job."""
        return operation_message(_find(self.jobs, request.name, context))

    def ListOperations(
        self, request: operations_pb2.ListOperationsRequest, context: grpc.ServicerContext
    ) -> operations_pb2.ListOperationsResponse:
        """All jobs, in the order in which they were submitted."""
        if request.filter:
            message = "filters on operations are not supported: leave filter empty"
            _invalid(context, "filter", message)
        if request.page_size < 0:
            _invalid(context, "page_size", f"page_size must not be below 0, not {request.page_size}")
        jobs = self.jobs.all()
        if request.page_token:
            # A page goes on after a submission, though that be forgotten by now.
            if not (request.page_token.isascii() and request.page_token.isdecimal()):
                _invalid(context, "page_token", "page_token is none that this quantizer gave: leave it empty")
            jobs = [job for job in jobs if job.sequence > int(request.page_token[:18])]
        size = min(request.page_size or DEFAULT_PAGE, MOST_PAGE)
        page = jobs[:size]
        return operations_pb2.ListOperationsResponse(
            operations=[operation_message(job) for job in page],
            next_page_token=str(page[-1].sequence) if len(jobs) > size else "",
        )

    def WaitOperation(
        self, request: operations_pb2.WaitOperationRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        """One job once it is done, or as it is when the time is over."""
        job = _find(self.jobs, request.name, context)
        # Centuries are no timedelta.
        asked = request.timeout.seconds + request.timeout.nanos / 1e9 if request.HasField("timeout") else MOST_WAIT_S
        left = context.time_remaining()
        # An answer that comes after the caller's deadline is none.
        bound = min(max(asked, 0.0), MOST_WAIT_S, max(0.0, left - 0.2) if left is not None else MOST_WAIT_S)
        self.streams.enter(context)
        try:
            return operation_message(self.jobs.wait(job.experiment_id, bound) or job)
        finally:
            self.streams.leave()

    def CancelOperation(self, request: operations_pb2.CancelOperationRequest, context: grpc.ServicerContext) -> Empty:
        """Ask for a job's end; nothing happens to one that is done."""
        job = _find(self.jobs, request.name, context)
        self.jobs.cancel(job.experiment_id, "cancelled by request")
        return Empty()

    def DeleteOperation(self, request: operations_pb2.DeleteOperationRequest, context: grpc.ServicerContext) -> Empty:
        """Forget a job that is done; its record stays in the log."""
        job = _find(self.jobs, request.name, context)
        if not self.jobs.delete(job.experiment_id):
            message = f"{request.name} is not done: cancel it first"
            abort(context, grpc.StatusCode.FAILED_PRECONDITION, "NOT_DONE", message)
        return Empty()


_FRAME = ("request_id", "command", "spec")


def _frame_violations(request: pb.SubmitExperimentRequest) -> tuple[Violation, ...]:
    violations = []
    if request.request_id:
        try:
            uuid.UUID(request.request_id)
        except ValueError:
            violations.append(Violation("request_id", f"request_id must be a UUID, not {request.request_id[:64]!r}"))
    if len(request.command) > MOST_COMMAND:
        violations.append(Violation("command", f"command must have at most {MOST_COMMAND} characters"))
    if len(UnknownFieldSet(request.spec)) > 0:
        violations.append(Violation("spec", "spec has options that this version of the quantizer does not know"))
    return tuple(violations)


def _find(jobs: Jobs, name: str, context: grpc.ServicerContext) -> JobView:
    job = jobs.get(name.removeprefix(OPERATION_PREFIX).lower())
    if job is None:
        abort(context, grpc.StatusCode.NOT_FOUND, "NO_SUCH_JOB", f"no job {name[:64]!r} here")
    return job


def _invalid(context: grpc.ServicerContext, field_name: str, message: str) -> NoReturn:
    violation = Violation(field_name, message)
    abort(context, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", message, violations=(violation,))


def abort(
    context: grpc.ServicerContext,
    code: grpc.StatusCode,
    reason: str,
    message: str,
    *,
    violations: tuple[Violation, ...] = (),
    retry: bool = False,
) -> NoReturn:
    """End a call with google.rpc details: ErrorInfo always, BadRequest for fields, RetryInfo where it may pass."""
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN)]
    if violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=violation.field, description=violation.message)
                    for violation in violations
                ]
            )
        )
    if retry:
        details.append(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=RETRY_S)))
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        status.details.add().Pack(detail)
    context.abort_with_status(rpc_status.to_status(fitting(status)))
    raise AssertionError("abort_with_status raises")


__all__ = ["Operations", "Quantizer", "Streams", "abort"]
