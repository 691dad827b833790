"""CollectorService: each call is a check of its request, one question to the store, one translation."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from qlog.v1 import collector_pb2, collector_pb2_grpc
from qlog.v1 import common_pb2 as pb

from collector import limits
from collector.append import Appender
from collector.compare import compare
from collector.errors import InvalidRequestError, ResponseTooLargeError, UnsupportedError
from collector.filters.meaning import current_time
from collector.follow import Follower, Link
from collector.index import Entry
from collector.listing import Cursor, Query, decode_token, encode_token, list_page, matching_entries, parse_page_size
from collector.rpc import Gate
from collector.store import Store
from collector.validate import check_experiment_id
from collector.views import Views
from collector.wire_compare import comparison_to_wire

_BASIC, _FULL = collector_pb2.EXPERIMENT_VIEW_BASIC, collector_pb2.EXPERIMENT_VIEW_FULL


def _is_full(view: collector_pb2.ExperimentView, default: collector_pb2.ExperimentView) -> bool:
    if view not in (collector_pb2.EXPERIMENT_VIEW_UNSPECIFIED, _BASIC, _FULL):
        raise InvalidRequestError("view", f"there is no view {view}")
    return (view or default) == _FULL


class CollectorService(collector_pb2_grpc.CollectorServiceServicer):
    """The collector's calls on one store."""

    def __init__(self, store: Store, gate: Gate) -> None:
        self._store = store
        self._gate = gate
        self._views = Views(store)
        self._open_time = Timestamp(seconds=int(time.time()))

    def AppendExperiment(
        self, request_iterator: Iterator[collector_pb2.AppendExperimentRequest], context: grpc.ServicerContext
    ) -> Iterator[collector_pb2.AppendExperimentResponse]:
        """Take events, and acknowledge what is on disk."""
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
        full = _is_full(request.view, _BASIC)
        query = Query(request.filter, request.order_by, request.include_running, full, current_time())
        size = parse_page_size(request.page_size)
        cursor = Cursor()
        if request.page_token:
            query, cursor = decode_token(query, request.page_token)
        page = list_page(self._store, self._views, query, cursor, size + 1)
        items = page.items
        response = collector_pb2.ListExperimentsResponse(total_size=page.total)
        page_bytes = 0
        for listed in items[:size]:
            experiment = self._view(listed.item, full=full)
            page_bytes += experiment.ByteSize()
            if page_bytes > limits.PAGE_BYTES and response.experiments:
                break
            response.experiments.append(experiment)
        shown = len(response.experiments)
        if shown < len(items):
            response.next_page_token = encode_token(query, items[shown - 1].after)
        return response

    def GetExperiment(
        self, request: collector_pb2.GetExperimentRequest, _context: grpc.ServicerContext
    ) -> collector_pb2.GetExperimentResponse:
        """Give the experiment that a REF names."""
        full = _is_full(request.view, _FULL)
        return collector_pb2.GetExperimentResponse(experiment=self._views.get(request.ref, full=full))

    def BatchGetExperiments(
        self, request: collector_pb2.BatchGetExperimentsRequest, _context: grpc.ServicerContext
    ) -> collector_pb2.BatchGetExperimentsResponse:
        """Give the experiments that several REFs name."""
        full = _is_full(request.view, _FULL)
        _check_refs(request.refs, 1, limits.MAX_REFS)
        response = collector_pb2.BatchGetExperimentsResponse()
        size = 0
        for place, ref in enumerate(request.refs):
            experiment = self._views.get(ref, full=full, field=f"refs[{place}]")
            size = _bounded(size + experiment.ByteSize())
            response.experiments.append(experiment)
        return response

    def CompareExperiments(
        self, request: collector_pb2.CompareExperimentsRequest, _context: grpc.ServicerContext
    ) -> collector_pb2.CompareExperimentsResponse:
        """Align two or more experiments."""
        _check_refs(request.refs, 2, limits.MAX_COMPARED)
        refs = [(ref, f"refs[{place}]") for place, ref in enumerate(request.refs)]
        records = [self._views.record(ref, field) for ref, field in refs]
        experiments = [self._views.get(ref, full=False, field=field) for ref, field in refs]
        response = comparison_to_wire(compare(records), experiments)
        _bounded(response.ByteSize())
        return response

    def WatchExperiments(
        self, request: collector_pb2.WatchExperimentsRequest, context: grpc.ServicerContext
    ) -> Iterator[collector_pb2.WatchExperimentsResponse]:
        """Send events as they come, and each experiment's end."""
        follower = Follower(self._store, self._views, request)
        ring = self._store.watchers.changed
        _on_end(context, ring)
        with self._gate.waker(ring):
            yield from follower.responses(Link(lambda: not context.is_active(), self._gate.draining))

    def ExportExperiments(
        self, request: collector_pb2.ExportExperimentsRequest, _context: grpc.ServicerContext
    ) -> Iterator[collector_pb2.ExportExperimentsResponse]:
        """Send the log as it stands, up to its last whole line of now; with a filter, the lines that match."""
        if request.format not in (collector_pb2.EXPORT_FORMAT_UNSPECIFIED, collector_pb2.EXPORT_FORMAT_JSONL):
            raise InvalidRequestError("format", f"there is no format {request.format}")
        if request.filter.strip():
            yield from self._export_matching(request.filter)
            return
        self._store.refresh()
        # The log only grows: up to here it is the same at any moment.
        place, end = 0, self._store.committed_size()
        while place < end:
            self._gate.check()
            chunk = b"".join(self._store.chunks(place, min(end, place + limits.EXPORT_CHUNK_BYTES)))
            if not chunk:
                return
            yield collector_pb2.ExportExperimentsResponse(chunk=chunk)
            place += len(chunk)

    def _export_matching(self, text: str) -> Iterator[collector_pb2.ExportExperimentsResponse]:
        gathered = b""
        for entry in matching_entries(self._store, text, current_time()):
            self._gate.check()
            line = b"".join(self._store.chunks(entry.offset, entry.offset + entry.length))
            gathered += line if line.endswith(b"\n") else line + b"\n"
            while len(gathered) >= limits.EXPORT_CHUNK_BYTES:
                yield collector_pb2.ExportExperimentsResponse(chunk=gathered[: limits.EXPORT_CHUNK_BYTES])
                gathered = gathered[limits.EXPORT_CHUNK_BYTES :]
        if gathered:
            yield collector_pb2.ExportExperimentsResponse(chunk=gathered)

    def ImportExperiments(
        self, _requests: Iterator[collector_pb2.ImportExperimentsRequest], _context: grpc.ServicerContext
    ) -> collector_pb2.ImportExperimentsResponse:
        """Not supported yet."""
        raise UnsupportedError("importing experiments is not supported yet")

    def AnnotateExperiment(
        self, _request: collector_pb2.AnnotateExperimentRequest, _context: grpc.ServicerContext
    ) -> collector_pb2.AnnotateExperimentResponse:
        """Not supported yet."""
        raise UnsupportedError("tags, notes and archive marks are not supported yet")

    def GetStoreInfo(
        self, _request: collector_pb2.GetStoreInfoRequest, _context: grpc.ServicerContext
    ) -> collector_pb2.GetStoreInfoResponse:
        """Say what this collector serves."""
        index = self._store.index()
        corrupt = index.corrupt_count()
        return collector_pb2.GetStoreInfoResponse(
            path=str(self._store.path),
            size_bytes=self._store.committed_size(),
            experiments=index.count() - corrupt,
            corrupt_lines=corrupt,
            running=len(self._store.running()),
            open_time=self._open_time,
            version=_version(),
            read_only=self._store.read_only,
        )

    def CheckStore(
        self, _request: collector_pb2.CheckStoreRequest, _context: grpc.ServicerContext
    ) -> Iterator[collector_pb2.CheckStoreResponse]:
        """Not supported yet."""
        raise UnsupportedError("checking the store is not supported yet")

    def BackupStore(
        self, _request: collector_pb2.BackupStoreRequest, _context: grpc.ServicerContext
    ) -> Iterator[collector_pb2.BackupStoreResponse]:
        """Not supported yet."""
        raise UnsupportedError("copying the store is not supported yet")

    def _view(self, item: Entry | str, *, full: bool) -> pb.Experiment:
        if isinstance(item, Entry):
            return self._views.of_entry(item, full=full)
        return self._views.of_running(item, full=full)


def register(store: Store, gate: Gate, server: grpc.Server) -> None:
    """Add the service to a server."""
    collector_pb2_grpc.add_CollectorServiceServicer_to_server(CollectorService(store, gate), server)


@cache
def _version() -> str:
    # Imported when asked for: it takes as long as opening a small store.
    from importlib import metadata

    return metadata.version("qlog-ssm")


def _on_end(context: grpc.ServicerContext, do: Callable[[], Any]) -> None:
    """Have something done when the call is over, however it ends; at once where it is already."""
    if not context.add_callback(do):
        do()


def _check_refs(refs: Sequence[str], least: int, most: int) -> None:
    if not least <= len(refs) <= most:
        raise InvalidRequestError("refs", f"{len(refs)} experiments: between {least} and {most} can be asked for")


def _bounded(size: int) -> int:
    if size > limits.MAX_RESPONSE_BYTES:
        most = limits.MAX_RESPONSE_BYTES >> 20
        raise ResponseTooLargeError(f"the answer is larger than {most} MiB: ask for fewer experiments at a time")
    return size


__all__ = ["CollectorService", "register"]
