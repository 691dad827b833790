"""A collector and a quantizer of a few lines, behind real gRPC servers on ports of their own."""

import threading
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import Any, Self

import grpc
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import any_pb2, empty_pb2
from google.rpc import error_details_pb2, status_pb2
from qlog.v1 import collector_pb2, collector_pb2_grpc, quantizer_pb2, quantizer_pb2_grpc
from qlog.v1 import common_pb2 as pb

from tests.client import builders


def abort(context: grpc.ServicerContext, code: grpc.StatusCode, message: str, *details: Any) -> None:
    """End a call with google.rpc details, as both servers do."""
    packed = []
    for detail in (error_details_pb2.ErrorInfo(reason=code.name, domain="qlog"), *details):
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    status = status_pb2.Status(code=code.value[0], message=message, details=packed)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, message)


class FakeServer:
    """Serves while it is entered; `port` may be that of one before it."""

    def __init__(self, port: int = 0) -> None:
        self._server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        self._register(self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")

    def _register(self, server: grpc.Server) -> None:
        raise NotImplementedError

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._server.stop(None).wait()


class FakeCollector(FakeServer, collector_pb2_grpc.CollectorServiceServicer):
    """Keeps experiments in memory.

    `running` are the events of experiments that have not ended, by id; `cut_after`: break a stream after so many
    responses; `fail`: (code, message, details) that every unary call ends with.
    """

    def __init__(self, experiments: Sequence[pb.Experiment] = (), port: int = 0) -> None:
        self.experiments = list(experiments)
        self.running: dict[str, list[pb.Event]] = {}
        self.ends: dict[str, pb.Experiment] = {}
        self.comparison = collector_pb2.CompareExperimentsResponse()
        self.requests: list[Any] = []
        self.cut_after: int | None = None
        self.fail: tuple[Any, ...] | None = None
        self.gone = threading.Event()
        self.imported = b""
        self.import_answer = collector_pb2.ImportExperimentsResponse()
        self.check: list[collector_pb2.CheckStoreResponse] = []
        self.backup: list[collector_pb2.BackupStoreResponse] = []
        super().__init__(port)

    def _register(self, server: grpc.Server) -> None:
        collector_pb2_grpc.add_CollectorServiceServicer_to_server(self, server)

    def stop(self) -> None:
        self.gone.set()
        super().stop()

    def _called(self, request: Any, context: grpc.ServicerContext) -> None:
        self.requests.append(request)
        if self.fail is not None:
            abort(context, *self.fail)

    def _unended(self) -> list[pb.Experiment]:
        return [
            builders.experiment(
                None,
                experiment_id=experiment_id,
                status=pb.EXPERIMENT_STATUS_RUNNING,
                progress=next((e.progress for e in reversed(events) if e.HasField("progress")), None),
            )
            for experiment_id, events in self.running.items()
        ]

    def ListExperiments(
        self, request: collector_pb2.ListExperimentsRequest, context: grpc.ServicerContext
    ) -> collector_pb2.ListExperimentsResponse:
        self._called(request, context)
        if request.filter == "acuracy > 1":
            wrong = "no experiment has a field 'acuracy': did you mean accuracy?"
            picture = f"{wrong}\n  acuracy > 1\n  ^^^^^^^"
            violation = error_details_pb2.BadRequest.FieldViolation(field="filter", description=picture)
            bad = error_details_pb2.BadRequest(field_violations=[violation])
            abort(context, grpc.StatusCode.INVALID_ARGUMENT, wrong, bad)
        shown = [*self.experiments, *(self._unended() if request.include_running else ())]
        if request.order_by == "number desc":
            shown.reverse()
        start = int(request.page_token or 0)
        # No more than three a page: what a client asks for is an upper bound.
        page = shown[start : start + min(request.page_size, 3)]
        following = start + len(page)
        return collector_pb2.ListExperimentsResponse(
            experiments=page,
            next_page_token=str(following) if following < len(shown) else "",
            total_size=len(shown),
        )

    def GetExperiment(
        self, request: collector_pb2.GetExperimentRequest, context: grpc.ServicerContext
    ) -> collector_pb2.GetExperimentResponse:
        self._called(request, context)
        everything = [*self.experiments, *self._unended()]
        if request.ref.removeprefix("-").isdecimal() and abs(int(request.ref)) <= len(self.experiments):
            return collector_pb2.GetExperimentResponse(experiment=self.experiments[int(request.ref)])
        for experiment in everything:
            if experiment.experiment_id.startswith(request.ref):
                return collector_pb2.GetExperimentResponse(experiment=experiment)
        abort(context, grpc.StatusCode.NOT_FOUND, f"there is no experiment {request.ref}")
        raise AssertionError

    def GetStoreInfo(
        self, request: collector_pb2.GetStoreInfoRequest, context: grpc.ServicerContext
    ) -> collector_pb2.GetStoreInfoResponse:
        self._called(request, context)
        return collector_pb2.GetStoreInfoResponse(experiments=len(self.experiments), running=len(self.running))

    def ImportExperiments(
        self, requests: Iterator[collector_pb2.ImportExperimentsRequest], context: grpc.ServicerContext
    ) -> collector_pb2.ImportExperimentsResponse:
        for request in requests:
            self.imported += request.chunk
        self._called("import", context)
        return self.import_answer

    def AnnotateExperiment(
        self, request: collector_pb2.AnnotateExperimentRequest, context: grpc.ServicerContext
    ) -> collector_pb2.AnnotateExperimentResponse:
        self._called(request, context)
        experiment = self.experiments[int(request.ref)]
        tags = [*(tag for tag in experiment.tags if tag not in request.remove_tags), *request.add_tags]
        del experiment.tags[:]
        experiment.tags.extend(dict.fromkeys(tags))
        if request.HasField("note"):
            experiment.note = request.note
        if request.HasField("archived"):
            experiment.archived = request.archived
        return collector_pb2.AnnotateExperimentResponse(experiment=experiment)

    def CheckStore(
        self, request: collector_pb2.CheckStoreRequest, context: grpc.ServicerContext
    ) -> Iterator[collector_pb2.CheckStoreResponse]:
        self._called(request, context)
        yield from self.check

    def BackupStore(
        self, request: collector_pb2.BackupStoreRequest, context: grpc.ServicerContext
    ) -> Iterator[collector_pb2.BackupStoreResponse]:
        self._called(request, context)
        yield from self.backup

    def CompareExperiments(
        self, request: collector_pb2.CompareExperimentsRequest, context: grpc.ServicerContext
    ) -> collector_pb2.CompareExperimentsResponse:
        self._called(request, context)
        return self.comparison

    def WatchExperiments(
        self, request: collector_pb2.WatchExperimentsRequest, context: grpc.ServicerContext
    ) -> Iterator[collector_pb2.WatchExperimentsResponse]:
        self.requests.append(request)
        sent = 0
        for experiment_id, events in self.running.items():
            if request.experiment_id not in {"", experiment_id}:
                continue
            start = int(request.resume_token or 0)
            for offset in range(start, len(events), 2):
                if sent == self.cut_after:
                    context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
                batch = events[offset : offset + 2]
                yield collector_pb2.WatchExperimentsResponse(
                    experiment_id=experiment_id, offset=offset, events=batch, resume_token=str(offset + len(batch))
                )
                sent += 1
            if experiment_id in self.ends:
                yield collector_pb2.WatchExperimentsResponse(
                    experiment_id=experiment_id, resume_token=str(len(events)), ended=self.ends[experiment_id]
                )
                if request.experiment_id:
                    return
        self.gone.wait(30)


class FakeQuantizer(FakeServer, quantizer_pb2_grpc.QuantizerServiceServicer, operations_pb2_grpc.OperationsServicer):
    """Runs jobs as the test says: `script` are the stream's messages, `outcome` what the operation ends with."""

    def __init__(self, port: int = 0) -> None:
        self.jobs: dict[str, operations_pb2.Operation] = {}
        self.submitted: list[quantizer_pb2.SubmitExperimentRequest] = []
        self.by_request: dict[str, str] = {}
        self.script: list[quantizer_pb2.WatchExperimentResponse] = []
        self.outcome: quantizer_pb2.JobResult | status_pb2.Status = quantizer_pb2.JobResult(summary="all done\n")
        self.violations: dict[str, str] = {}
        self.cut_after: int | None = None
        self.hold: threading.Event | None = None
        self.watches = 0
        super().__init__(port)

    def _register(self, server: grpc.Server) -> None:
        quantizer_pb2_grpc.add_QuantizerServiceServicer_to_server(self, server)
        operations_pb2_grpc.add_OperationsServicer_to_server(self, server)

    def add(self, experiment_id: str, state: "quantizer_pb2.JobState", **more: Any) -> operations_pb2.Operation:
        metadata = quantizer_pb2.JobMetadata(experiment_id=experiment_id, state=state, **more)
        operation = operations_pb2.Operation(name=f"operations/{experiment_id}")
        operation.done = state in {3, 4, 5}
        operation.metadata.Pack(metadata)
        self.jobs[operation.name] = operation
        return operation

    def SubmitExperiment(
        self, request: quantizer_pb2.SubmitExperimentRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        if self.violations:
            bad = error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=field, description=text)
                    for field, text in self.violations.items()
                ]
            )
            abort(context, grpc.StatusCode.INVALID_ARGUMENT, next(iter(self.violations.values())), bad)
        self.submitted.append(request)
        if request.request_id not in self.by_request:
            experiment_id = builders.IDS[len(self.jobs)]
            self.add(experiment_id, quantizer_pb2.JOB_STATE_QUEUED, spec=request.spec)
            self.by_request[request.request_id] = f"operations/{experiment_id}"
        return self.jobs[self.by_request[request.request_id]]

    def WatchExperiment(
        self, request: quantizer_pb2.WatchExperimentRequest, context: grpc.ServicerContext
    ) -> Iterator[quantizer_pb2.WatchExperimentResponse]:
        self.watches += 1
        for place, message in enumerate(self.script):
            if self.watches == 1 and place == self.cut_after:
                context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
            yield message
        if self.hold is not None:
            self.hold.wait(30)
        operation = self.jobs[request.name]
        completed = isinstance(self.outcome, quantizer_pb2.JobResult)
        metadata = quantizer_pb2.JobMetadata()
        operation.metadata.Unpack(metadata)
        metadata.state = quantizer_pb2.JOB_STATE_COMPLETED if completed else quantizer_pb2.JOB_STATE_FAILED
        operation.metadata.Pack(metadata)
        operation.done = True
        if isinstance(self.outcome, quantizer_pb2.JobResult):
            operation.response.Pack(self.outcome)
        else:
            operation.error.CopyFrom(self.outcome)

    def ListOperations(
        self, request: operations_pb2.ListOperationsRequest, context: grpc.ServicerContext
    ) -> operations_pb2.ListOperationsResponse:
        names = sorted(self.jobs)
        start = int(request.page_token or 0)
        page = names[start : start + 2]
        following = str(start + 2) if start + 2 < len(names) else ""
        return operations_pb2.ListOperationsResponse(
            operations=[self.jobs[name] for name in page], next_page_token=following
        )

    def GetOperation(
        self, request: operations_pb2.GetOperationRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        if request.name not in self.jobs:
            abort(context, grpc.StatusCode.NOT_FOUND, f"no job {request.name}")
        return self.jobs[request.name]

    def CancelOperation(
        self, request: operations_pb2.CancelOperationRequest, context: grpc.ServicerContext
    ) -> empty_pb2.Empty:
        self.add(request.name.removeprefix("operations/"), quantizer_pb2.JOB_STATE_CANCELLED)
        return empty_pb2.Empty()
