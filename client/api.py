"""What the client can ask for: functions of our own values over the stubs of both services, all with deadlines."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc
from qlog.v1 import collector_pb2 as pb
from qlog.v1 import collector_pb2_grpc
from qlog.v1.credentials import Credentials

from client import rpc, wire
from client.errors import NotFoundError, QlogError
from client.values import Experiment, ExperimentPage

if TYPE_CHECKING:
    from client.annotations import Annotation
    from client.backup import BackupChunk
    from client.checks import CheckReport
    from client.comparisons import Comparison
    from client.events import WatchBatch
    from client.imports import ImportReport
    from client.jobs import Job, JobEvent

MAX_PAGE_SIZE = 1000
# With statistics an experiment has a hundred times as much.
_FULL_PAGE_SIZE = 50
_UUID_LENGTH = 36


class _Api:
    """One connection to one program; closes it at the end of a `with`."""

    program: str

    def __init__(self, endpoint: str, timeout_s: float = 30.0, credentials: Credentials | None = None) -> None:
        self.endpoint = endpoint
        self._timeout_s = timeout_s
        self._channel = rpc.open_channel(endpoint, credentials or Credentials())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._channel.close()

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise rpc.translated(error, self.endpoint, self.program) from error

    def _stream(
        self, method: Any, request: Any, timeout_s: float | None = None, *, resumable: bool = False
    ) -> Iterator[Any]:
        """What a call streams; one that is resumable and cannot even begin is lost like one that broke off."""
        call = method(request, timeout=timeout_s)
        begun = resumable
        try:
            for response in call:
                begun = True
                yield response
        except grpc.RpcError as error:
            raise rpc.translated(error, self.endpoint, self.program, stream=begun) from error
        finally:
            call.cancel()


class CollectorApi(_Api):
    """The experiments that a collector has."""

    program = "collector"

    def __init__(self, endpoint: str, timeout_s: float = 30.0, credentials: Credentials | None = None) -> None:
        super().__init__(endpoint, timeout_s, credentials)
        self._stub = collector_pb2_grpc.CollectorServiceStub(self._channel)

    def page(
        self,
        *,
        page_size: int,
        page_token: str = "",
        order_by: str = "number",
        filter_text: str = "",
        running: bool = False,
    ) -> ExperimentPage:
        """One page of experiments, without statistics; by number, running ones, where wanted, are the newest.

        Args:
            order_by: fields with asc or desc, as "results.accuracy desc, number".

        Raises:
            QlogError: the call failed.
        """
        request = pb.ListExperimentsRequest(
            filter=filter_text,
            order_by=order_by,
            page_size=page_size,
            page_token=page_token,
            view=pb.EXPERIMENT_VIEW_BASIC,
            include_running=running,
        )
        return wire.page_from(self._call(self._stub.ListExperiments, request))

    def get(self, ref: str, *, full: bool) -> Experiment:
        """One experiment; `full`: with its tensors' statistics.

        Raises:
            QlogError: the call failed.
        """
        view = pb.EXPERIMENT_VIEW_FULL if full else pb.EXPERIMENT_VIEW_BASIC
        response = self._call(self._stub.GetExperiment, pb.GetExperimentRequest(ref=ref, view=view))
        return wire.experiment_from(response.experiment, full=full)

    def compare(self, refs: Sequence[str]) -> "Comparison":
        """Two or more experiments side by side.

        Raises:
            QlogError: the call failed.
        """
        from client.compare_wire import comparison_from

        return comparison_from(self._call(self._stub.CompareExperiments, pb.CompareExperimentsRequest(refs=refs)))

    def every(self, filter_text: str = "", *, full: bool = False) -> Iterator[Experiment]:
        """All experiments that have ended and match, by number, page by page; `full`: with statistics.

        Raises:
            QlogError: a call failed.
        """
        token = ""
        while True:
            request = pb.ListExperimentsRequest(
                filter=filter_text,
                order_by="number",
                page_size=_FULL_PAGE_SIZE if full else MAX_PAGE_SIZE,
                page_token=token,
                view=pb.EXPERIMENT_VIEW_FULL if full else pb.EXPERIMENT_VIEW_BASIC,
            )
            response = self._call(self._stub.ListExperiments, request)
            for experiment in response.experiments:
                yield wire.experiment_from(experiment, full=full)
            token = response.next_page_token
            if not token:
                return

    def export(self, filter_text: str = "", *, as_shown: bool = False, start: int = 0) -> Iterator[bytes]:
        """The lines of the log as they stand there, cut anywhere; `as_shown`: with what was said of each since.

        Args:
            start: the byte of the log to begin with; of the whole log as it stands.

        Raises:
            QlogError: the call failed.
        """
        request = pb.ExportExperimentsRequest(
            filter=filter_text,
            format=pb.EXPORT_FORMAT_JSONL,
            as_shown=as_shown,
            resume_token=str(start) if start else "",
        )
        for response in self._stream(self._stub.ExportExperiments, request):
            yield response.chunk

    def import_lines(self, chunks: Iterable[bytes]) -> "ImportReport":
        """Add lines of another log, cut anywhere; what is there already is not added again.

        Raises:
            QlogError: the call failed.
        """
        from client.imports import import_report_from

        failures: list[QlogError] = []

        def requests() -> Iterator[pb.ImportExperimentsRequest]:
            # gRPC reads in a thread of its own, where an error would be lost.
            try:
                for chunk in chunks:
                    yield pb.ImportExperimentsRequest(chunk=chunk)
            except QlogError as error:
                failures.append(error)
                call.cancel()

        # It takes as long as the file is large: no deadline.
        call = self._stub.ImportExperiments.future(requests())
        try:
            return import_report_from(call.result())
        except grpc.FutureCancelledError:
            raise failures[0] from None
        except grpc.RpcError as error:
            raise rpc.translated(error, self.endpoint, self.program) from error
        finally:
            call.cancel()

    def annotate(self, ref: str, annotation: "Annotation") -> Experiment:
        """Change an experiment's tags, note or archive mark; the experiment after it.

        Raises:
            QlogError: the call failed.
        """
        request = pb.AnnotateExperimentRequest(
            ref=ref,
            add_tags=annotation.add_tags,
            remove_tags=annotation.remove_tags,
            note=annotation.note,
            archived=annotation.archived,
        )
        return wire.experiment_from(self._call(self._stub.AnnotateExperiment, request).experiment)

    def check(self) -> "CheckReport":
        """Have the store checked, every line of every file.

        Raises:
            QlogError: the call failed.
        """
        from client.checks import CheckReport, counts_from, finding_from

        findings, counts = [], {}
        for response in self._stream(self._stub.CheckStore, pb.CheckStoreRequest()):
            findings += [finding_from(finding) for finding in response.findings]
            if response.HasField("summary"):
                counts = counts_from(response.summary)
        return CheckReport(tuple(findings), counts)

    def backup(self) -> "Iterator[BackupChunk]":
        """The files of the store as of one moment, one after the other.

        Raises:
            QlogError: the call failed.
        """
        from client.backup import BackupChunk

        for response in self._stream(self._stub.BackupStore, pb.BackupStoreRequest()):
            yield BackupChunk(response.file, response.offset, response.chunk, response.size_bytes)

    def running(self) -> int:
        """How many experiments have not ended.

        Raises:
            QlogError: the call failed.
        """
        return int(self._call(self._stub.GetStoreInfo, pb.GetStoreInfoRequest()).running)

    def watch(
        self, experiment_id: str = "", resume_token: str = "", timeout_s: float | None = None
    ) -> "Iterator[WatchBatch]":
        """Events as they arrive, those of before first; of one experiment until it ends, or of all for ever.

        Raises:
            StreamLostError: the stream broke off, or `timeout_s` is over: resume it with the last token.
            QlogError: the call failed.
        """
        from client.event_wire import batch_from

        request = pb.WatchExperimentsRequest(experiment_id=experiment_id, resume_token=resume_token)
        for response in self._stream(self._stub.WatchExperiments, request, timeout_s, resumable=True):
            yield batch_from(response)


class QuantizerApi(_Api):
    """The jobs of a quantizer."""

    program = "quantizer"

    def __init__(self, endpoint: str, timeout_s: float = 30.0, credentials: Credentials | None = None) -> None:
        super().__init__(endpoint, timeout_s, credentials)
        # Reading the log needs none of these.
        from google.longrunning import operations_pb2_grpc
        from qlog.v1 import quantizer_pb2_grpc

        self._stub = quantizer_pb2_grpc.QuantizerServiceStub(self._channel)
        self._operations = operations_pb2_grpc.OperationsStub(self._channel)

    def submit(self, options: Mapping[str, Any], request_id: str, command: str) -> "Job":
        """Queue an experiment; the same `request_id` again gives the job of the first time.

        Args:
            options: by name, as `qlog.v1.options` collected them.
            request_id: a UUID.
            command: what the user typed.

        Raises:
            QlogError: the call failed, or the options cannot be had.
        """
        from qlog.v1 import quantizer_pb2
        from qlog.v1.options import spec_from_options

        from client.job_wire import job_from_operation

        request = quantizer_pb2.SubmitExperimentRequest(
            spec=spec_from_options(options), request_id=request_id, command=command
        )
        return job_from_operation(self._call(self._stub.SubmitExperiment, request))

    def jobs(self) -> "Iterator[Job]":
        """All jobs that the quantizer knows, in its order.

        Raises:
            QlogError: a call failed.
        """
        from google.longrunning import operations_pb2

        from client.job_wire import job_from_operation

        token = ""
        while True:
            request = operations_pb2.ListOperationsRequest(name="operations", page_size=MAX_PAGE_SIZE, page_token=token)
            response = self._call(self._operations.ListOperations, request)
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
        from google.longrunning import operations_pb2

        from client.job_wire import job_from_operation

        return job_from_operation(
            self._call(self._operations.GetOperation, operations_pb2.GetOperationRequest(name=name))
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
        from google.longrunning import operations_pb2

        self._call(self._operations.CancelOperation, operations_pb2.CancelOperationRequest(name=name))

    def watch(self, name: str) -> "Iterator[JobEvent]":
        """What a job tells, from its start, until it ends.

        Raises:
            StreamLostError: the stream broke off.
            QlogError: the call failed.
        """
        from qlog.v1 import quantizer_pb2

        from client.job_wire import job_event_from

        request = quantizer_pb2.WatchExperimentRequest(name=name)
        for response in self._stream(self._stub.WatchExperiment, request, resumable=True):
            if (event := job_event_from(name, response)) is not None:
                yield event


__all__ = ["MAX_PAGE_SIZE", "CollectorApi", "QuantizerApi"]
