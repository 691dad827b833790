"""What the client can ask a quantizer: functions of our own values over the stubs of its services."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from google.longrunning import operations_pb2, operations_pb2_grpc
from qlog.v1 import quantizer_pb2, quantizer_pb2_grpc
from qlog.v1.credentials import Credentials
from qlog.v1.options import spec_from_options

from client.connection import Connection
from client.errors import NotFoundError
from client.job_wire import job_event_from, job_from_operation

if TYPE_CHECKING:
    from client.jobs import Job, JobEvent

_PAGE_SIZE = 1000
_UUID_LENGTH = 36


class QuantizerApi(Connection):
    """The jobs of a quantizer."""

    program = "quantizer"

    def __init__(self, endpoint: str, timeout_s: float = 30.0, credentials: Credentials | None = None) -> None:
        super().__init__(endpoint, timeout_s, credentials)
        self._stub = quantizer_pb2_grpc.QuantizerServiceStub(self.channel)
        self._operations = operations_pb2_grpc.OperationsStub(self.channel)

    def submit(self, options: Mapping[str, Any], request_id: str, command: str) -> "Job":
        """Queue an experiment; the same `request_id` again gives the job of the first time.

        Args:
            options: by name, as `qlog.v1.options` collected them.
            request_id: a UUID.
            command: what the user typed.

        Raises:
            QlogError: the call failed, or the options cannot be had.
        """
        request = quantizer_pb2.SubmitExperimentRequest(
            spec=spec_from_options(options), request_id=request_id, command=command
        )
        return job_from_operation(self.call(self._stub.SubmitExperiment, request))

    def jobs(self) -> "Iterator[Job]":
        """All jobs that the quantizer knows, in its order.

        Raises:
            QlogError: a call failed.
        """
        token = ""
        while True:
            request = operations_pb2.ListOperationsRequest(name="operations", page_size=_PAGE_SIZE, page_token=token)
            response = self.call(self._operations.ListOperations, request)
            for operation in response.operations:
                yield job_from_operation(operation)
            token = response.next_page_token
            if not token:
                return

    def job(self, name: str) -> "Job":
        """One job by the name of its operation.

        Raises:
            QlogError: the call failed.
        """
        return job_from_operation(
            self.call(self._operations.GetOperation, operations_pb2.GetOperationRequest(name=name))
        )

    def find_job(self, ref: str) -> "Job":
        """One job by the name of its operation, its experiment's id or a unique prefix of that.

        Raises:
            NotFoundError: none fits, or several do.
            QlogError: a call failed.
        """
        wanted = ref.removeprefix("operations/").lower()
        if len(wanted) == _UUID_LENGTH:
            return self.job(f"operations/{wanted}")
        fitting = [job for job in self.jobs() if job.experiment_id.startswith(wanted)] if wanted else []
        exact = [job for job in fitting if job.experiment_id == wanted]
        match exact or fitting:
            case [job]:
                return job
            case []:
                raise NotFoundError(f"no job {ref!r} at {self.endpoint}: `qlog jobs` lists those that there are")
            case several:
                raise NotFoundError(f"{len(several)} jobs begin with {ref!r}: give more of the id")

    def cancel(self, name: str) -> None:
        """Ask for the end of a job; it ends a little later.

        Raises:
            QlogError: the call failed.
        """
        self.call(self._operations.CancelOperation, operations_pb2.CancelOperationRequest(name=name))

    def watch(self, name: str) -> "Iterator[JobEvent]":
        """What a job tells, from its start, until it ends.

        Raises:
            StreamLostError: the stream broke off.
            QlogError: the call failed.
        """
        request = quantizer_pb2.WatchExperimentRequest(name=name)
        for response in self.stream(self._stub.WatchExperiment, request, resumable=True):
            if (event := job_event_from(name, response)) is not None:
                yield event


__all__ = ["QuantizerApi"]
