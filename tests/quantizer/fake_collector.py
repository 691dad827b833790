"""A collector of a few lines, with a real gRPC server on a port of its own, that can misbehave on request."""

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from types import TracebackType

import grpc
from qlog.v1 import collector_pb2 as pb
from qlog.v1.collector_pb2_grpc import CollectorServiceServicer, add_CollectorServiceServicer_to_server
from qlog.v1.common_pb2 import Event


class FakeCollector(CollectorServiceServicer):
    """Keeps events in memory. `store` may be handed to the next one: a collector that was started again."""

    def __init__(self, port: int = 0, store: "dict[str, list[Event]] | None" = None) -> None:
        self.store: dict[str, list[Event]] = {} if store is None else store
        self.heartbeats: list[str] = []
        self.repeats = 0
        self.requests = 0
        self.die_after_requests: int | None = None
        self.refuse: grpc.StatusCode | None = None
        # None: all.
        self.refused_id: str | None = None
        # Cleared: no call is answered.
        self.answering = threading.Event()
        self.answering.set()
        # Called with each request before it is taken.
        self.look: Callable[[pb.AppendExperimentRequest], None] = lambda _request: None
        self.tokens: list[str] = []
        self._lock = threading.Lock()
        self._server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        add_CollectorServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> "FakeCollector":
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        self.answering.set()
        self._server.stop(None).wait()

    def finished(self, experiment_id: str) -> bool:
        return any(event.HasField("finish") for event in self.store.get(experiment_id, []))

    def kinds(self, experiment_id: str) -> list[str]:
        return [str(event.WhichOneof("event")) for event in self.store.get(experiment_id, [])]

    def _number(self, experiment_id: str) -> int | None:
        return list(self.store).index(experiment_id) if self.finished(experiment_id) else None

    def _call(self, context: grpc.ServicerContext) -> None:
        self.tokens += [str(value) for key, value in context.invocation_metadata() if key == "authorization"]
        self.answering.wait()

    def _check(self, experiment_id: str, context: grpc.ServicerContext) -> None:
        if self.refuse is not None and self.refused_id in (None, experiment_id):
            context.abort(self.refuse, "refused on request")

    def GetAppendStatus(
        self, request: pb.GetAppendStatusRequest, context: grpc.ServicerContext
    ) -> pb.GetAppendStatusResponse:
        self._call(context)
        with self._lock:
            self._check(request.experiment_id, context)
            return pb.GetAppendStatusResponse(
                committed_offset=len(self.store.get(request.experiment_id, [])),
                finished=self.finished(request.experiment_id),
                number=self._number(request.experiment_id),
            )

    def AppendExperiment(
        self, request_iterator: Iterator[pb.AppendExperimentRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.AppendExperimentResponse]:
        for request in request_iterator:
            self._call(context)
            with self._lock:
                self.look(request)
                self.requests += 1
                if self.die_after_requests is not None and self.requests > self.die_after_requests:
                    context.abort(grpc.StatusCode.UNAVAILABLE, "dying on request")
                self._check(request.experiment_id, context)
                events = self.store.setdefault(request.experiment_id, [])
                if request.offset > len(events):
                    context.abort(grpc.StatusCode.OUT_OF_RANGE, f"offset {request.offset}: {len(events)} is wanted")
                if not request.events:
                    self.heartbeats.append(request.experiment_id)
                new = list(request.events)[len(events) - request.offset :]
                self.repeats += len(request.events) - len(new)
                events.extend(new)
                yield pb.AppendExperimentResponse(
                    experiment_id=request.experiment_id,
                    committed_offset=len(events),
                    number=self._number(request.experiment_id),
                )
