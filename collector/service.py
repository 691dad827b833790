"""CollectorService: each call is a check of its request, one question to the store, one translation.

What only some calls need is imported by their first: `qlog list` on a local store makes a collector for one question.
"""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from qlog.v1 import collector_pb2, collector_pb2_grpc

from collector.answers import comparison, is_full, page, several
from collector.gate import Gate
from collector.limits import MAX_TOKEN_LENGTH
from collector.refs import resolve
from collector.store import Store
from collector.validate import check_experiment_id, check_length
from collector.views import Views

if TYPE_CHECKING:
    from collector.received import Received


class CollectorService(collector_pb2_grpc.CollectorServiceServicer):
    """The collector's calls on one store."""

    def __init__(self, store: Store, gate: Gate) -> None:
        self._store = store
        self._gate = gate
        self._views = Views(store)
        self._open_time = Timestamp(seconds=int(time.time()))

    def AppendExperiment(
        self, request_iterator: "Iterator[Received]", context: grpc.ServicerContext
    ) -> Iterator[collector_pb2.AppendExperimentResponse]:
        """Take events, and acknowledge what is on disk."""
        from collector.append import Appender

        appender = Appender(self._store, request_iterator, self._gate)
        _on_end(context, appender.hang_up)
        return appender.responses()

    def GetAppendStatus(
        self, request: collector_pb2.GetAppendStatusRequest, _context: grpc.ServicerContext
    ) -> collector_pb2.GetAppendStatusResponse:
        """Say how much of an experiment is on disk."""
        receipt = self._store.status(check_experiment_id(request.experiment_id))
        return collector_pb2.GetAppendStatusResponse(
            committed_offset=receipt.committed_offset, finished=receipt.finished, number=receipt.number
        )

    def ListExperiments(
        self, request: collector_pb2.ListExperimentsRequest, _context: grpc.ServicerContext
    ) -> collector_pb2.ListExperimentsResponse:
        """List a page of experiments."""
        return page(self._store, self._views, request)

    def GetExperiment(
        self, request: collector_pb2.GetExperimentRequest, _context: grpc.ServicerContext
    ) -> collector_pb2.GetExperimentResponse:
        """Give the experiment that a REF names."""
        full = is_full(request.view, collector_pb2.EXPERIMENT_VIEW_FULL)
        return collector_pb2.GetExperimentResponse(experiment=self._views.get(request.ref, full=full))

    def BatchGetExperiments(
        self, request: collector_pb2.BatchGetExperimentsRequest, _context: grpc.ServicerContext
    ) -> collector_pb2.BatchGetExperimentsResponse:
        """Give the experiments that several REFs name."""
        return several(self._views, request)

    def CompareExperiments(
        self, request: collector_pb2.CompareExperimentsRequest, _context: grpc.ServicerContext
    ) -> collector_pb2.CompareExperimentsResponse:
        """Align two or more experiments."""
        return comparison(self._views, request)

    def WatchExperiments(
        self, request: collector_pb2.WatchExperimentsRequest, context: grpc.ServicerContext
    ) -> Iterator[collector_pb2.WatchExperimentsResponse]:
        """Send events as they come, and each experiment's end."""
        from collector.follow import Follower, Link

        check_length(request.resume_token, MAX_TOKEN_LENGTH, "resume_token")
        follower = Follower(self._store, self._views, request)
        ring = self._store.watchers.changed
        _on_end(context, ring)
        with self._gate.waker(ring):
            yield from follower.responses(Link(lambda: not context.is_active(), self._gate.draining))

    def ExportExperiments(
        self, request: collector_pb2.ExportExperimentsRequest, _context: grpc.ServicerContext
    ) -> Iterator[collector_pb2.ExportExperimentsResponse]:
        """Send the log as it stands, up to its last whole line of now; with a filter, the lines that match."""
        from collector.exporting import export

        return export(self._store, request, self._gate)

    def ImportExperiments(
        self, requests: Iterator[collector_pb2.ImportExperimentsRequest], _context: grpc.ServicerContext
    ) -> collector_pb2.ImportExperimentsResponse:
        """Take in lines of other stores; on disk when it is answered."""
        from collector.importing import Tally, candidates

        tally = Tally()
        for group in candidates((request.chunk for request in requests), tally):
            self._gate.check()
            self._store.take_in(group, tally)
        rejections = [collector_pb2.ImportRejection(line=place, reason=reason) for place, reason in tally.rejections]
        return collector_pb2.ImportExperimentsResponse(
            imported=tally.imported,
            already_present=tally.already_present,
            rejected=tally.rejected,
            rejections=rejections,
        )

    def AnnotateExperiment(
        self, request: collector_pb2.AnnotateExperimentRequest, _context: grpc.ServicerContext
    ) -> collector_pb2.AnnotateExperimentResponse:
        """Change what is said of an experiment; on disk when it is answered."""
        from collector.annotate import change_from_request

        change = change_from_request(request)
        found = resolve(self._store, request.ref)
        self._store.annotate(found, change)
        return collector_pb2.AnnotateExperimentResponse(experiment=self._views.of(found, full=False))

    def GetStoreInfo(
        self, _request: collector_pb2.GetStoreInfoRequest, _context: grpc.ServicerContext
    ) -> collector_pb2.GetStoreInfoResponse:
        """Say what this collector serves."""
        from collector.reporting import store_info

        return store_info(self._store, self._open_time)

    def CheckStore(
        self, _request: collector_pb2.CheckStoreRequest, _context: grpc.ServicerContext
    ) -> Iterator[collector_pb2.CheckStoreResponse]:
        """Read every line of every file, and tell what is wrong."""
        from collector.reporting import findings

        return findings(self._store, self._gate)

    def BackupStore(
        self, _request: collector_pb2.BackupStoreRequest, _context: grpc.ServicerContext
    ) -> Iterator[collector_pb2.BackupStoreResponse]:
        """Send the store's files up to their last whole lines of now."""
        from collector.exporting import backup

        return backup(self._store, self._gate)


def register(store: Store, gate: Gate, server: grpc.Server) -> None:
    """Add the service to a server."""
    collector_pb2_grpc.add_CollectorServiceServicer_to_server(CollectorService(store, gate), server)


def _on_end(context: grpc.ServicerContext, do: Callable[[], Any]) -> None:
    """Have something done when the call is over, however it ends; at once where it is already."""
    if not context.add_callback(do):
        do()


__all__ = ["CollectorService", "register"]
