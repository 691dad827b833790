"""CollectorService: each call is a check of its request, one question to the store, one translation."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import grpc
import orjson
from google.protobuf.timestamp_pb2 import Timestamp
from qlog.v1 import collector_pb2, collector_pb2_grpc
from qlog.v1 import common_pb2 as pb

from collector import limits
from collector.annotate import change_from_request
from collector.append import Appender
from collector.compare import compare
from collector.errors import InvalidRequestError, ResponseTooLargeError
from collector.filters.meaning import current_time
from collector.follow import Follower, Link
from collector.fsck import Checked
from collector.importing import Tally, candidates
from collector.index import Entry
from collector.listing import Cursor, Query, decode_token, encode_token, list_page, matching_entries, parse_page_size
from collector.names import LOG_NAME, META_NAME
from collector.refs import resolve
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
        self._store.refresh()
        if request.as_shown:
            yield from self._shown(request.filter, _place_of(request.resume_token))
            return
        if request.filter.strip():
            yield from self._export_matching(request.filter, _place_of(request.resume_token))
            return
        # The log only grows: up to here it is the same at any moment.
        place, end = _place_of(request.resume_token), self._store.committed_size()
        while place < end:
            self._gate.check()
            chunk = b"".join(self._store.chunks(place, min(end, place + limits.EXPORT_CHUNK_BYTES)))
            if not chunk:
                return
            place += len(chunk)
            yield collector_pb2.ExportExperimentsResponse(chunk=chunk, resume_token=str(place))

    def _shown(self, text: str, number: int) -> Iterator[collector_pb2.ExportExperimentsResponse]:
        """The lines from a number on, with what was said of each and completed by its amendment."""
        for entry in matching_entries(self._store, text, current_time(), first=number):
            self._gate.check()
            if entry.corrupt:
                continue
            place = entry.number
            said = self._store.annotation(entry)
            record = self._store.record(entry) | {
                "number": place,
                "tags": list(said.tags),
                "note": said.note,
                "archived": said.archived,
            }
            chunk = orjson.dumps(record) + b"\n"
            for start in range(0, len(chunk), limits.EXPORT_CHUNK_BYTES):
                piece = chunk[start : start + limits.EXPORT_CHUNK_BYTES]
                # One who goes on from within a line gets it anew.
                whole = start + len(piece) == len(chunk)
                yield collector_pb2.ExportExperimentsResponse(chunk=piece, resume_token=str(place + 1) if whole else "")

    def _export_matching(self, text: str, number: int) -> Iterator[collector_pb2.ExportExperimentsResponse]:
        """The lines from a number on that match, as they stand."""
        for entry in matching_entries(self._store, text, current_time(), first=number):
            self._gate.check()
            place, end = entry.offset, entry.offset + entry.length
            while place < end:
                piece = b"".join(self._store.chunks(place, min(end, place + limits.EXPORT_CHUNK_BYTES)))
                if not piece:
                    return
                place += len(piece)
                last = place >= end
                if last and not piece.endswith(b"\n"):
                    piece += b"\n"
                token = str(entry.number + 1) if last else ""
                yield collector_pb2.ExportExperimentsResponse(chunk=piece, resume_token=token)

    def ImportExperiments(
        self, requests: Iterator[collector_pb2.ImportExperimentsRequest], _context: grpc.ServicerContext
    ) -> collector_pb2.ImportExperimentsResponse:
        """Take in lines of other stores; on disk when it is answered."""
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
        change = change_from_request(request)
        found = resolve(self._store, request.ref)
        self._store.annotate(found, change)
        return collector_pb2.AnnotateExperimentResponse(experiment=self._view(found, full=False))

    def GetStoreInfo(
        self, _request: collector_pb2.GetStoreInfoRequest, _context: grpc.ServicerContext
    ) -> collector_pb2.GetStoreInfoResponse:
        """Say what this collector serves."""
        index = self._store.index()
        corrupt = index.corrupt_count()
        annotated, amended = self._store.meta.counts()
        return collector_pb2.GetStoreInfoResponse(
            path=str(self._store.path),
            size_bytes=self._store.committed_size(),
            experiments=index.count() - corrupt,
            corrupt_lines=corrupt,
            running=len(self._store.running()),
            open_time=self._open_time,
            version=_version(),
            read_only=self._store.read_only,
            meta_size_bytes=self._store.meta.size,
            corrupt_meta_lines=self._store.meta.corrupt,
            annotated=annotated,
            amended=amended,
            lease_s=self._store.lease_s,
        )

    def CheckStore(
        self, _request: collector_pb2.CheckStoreRequest, _context: grpc.ServicerContext
    ) -> Iterator[collector_pb2.CheckStoreResponse]:
        """Read every line of every file, and tell what is wrong."""
        checked = Checked()
        for found in self._store.check(checked):
            self._gate.check()
            checked.counts[found.severity] += 1
            finding = collector_pb2.Finding(
                kind=f"FINDING_KIND_{found.kind}",
                severity=f"FINDING_SEVERITY_{found.severity}",
                file=found.file,
                offset=found.offset,
                number=found.number,
                experiment_id=found.experiment_id,
                message=found.message,
            )
            yield collector_pb2.CheckStoreResponse(findings=[finding])
        summary = collector_pb2.CheckSummary(
            lines=checked.lines,
            verified_lines=checked.verified_lines,
            meta_lines=checked.meta_lines,
            running=checked.running,
            bytes=checked.bytes,
            notices=checked.counts["NOTICE"],
            warnings=checked.counts["WARNING"],
            errors=checked.counts["ERROR"],
        )
        yield collector_pb2.CheckStoreResponse(summary=summary)

    def BackupStore(
        self, _request: collector_pb2.BackupStoreRequest, _context: grpc.ServicerContext
    ) -> Iterator[collector_pb2.BackupStoreResponse]:
        """Send the store's files up to their last whole lines of now."""
        store = self._store
        store.refresh()
        # Whatever the one says is of lines that the other has: its size is taken first.
        meta_size, log_size = store.meta.size, store.committed_size()
        for name, size, chunks in (
            (LOG_NAME, log_size, store.chunks),
            (META_NAME, meta_size, store.meta.chunks),
        ):
            place = 0
            while place < size or place == 0:
                self._gate.check()
                chunk = b"".join(chunks(place, min(size, place + limits.EXPORT_CHUNK_BYTES)))
                yield collector_pb2.BackupStoreResponse(file=name, offset=place, chunk=chunk, size_bytes=size)
                if not chunk:
                    break
                place += len(chunk)

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


def _place_of(token: str) -> int:
    if not token:
        return 0
    if not (token.isascii() and token.isdigit() and len(token) < 19):
        raise InvalidRequestError("resume_token", "resume_token is not one that this server gave")
    return int(token)


def _check_refs(refs: Sequence[str], least: int, most: int) -> None:
    if not least <= len(refs) <= most:
        raise InvalidRequestError("refs", f"{len(refs)} experiments: between {least} and {most} can be asked for")


def _bounded(size: int) -> int:
    if size > limits.MAX_RESPONSE_BYTES:
        most = limits.MAX_RESPONSE_BYTES >> 20
        raise ResponseTooLargeError(f"the answer is larger than {most} MiB: ask for fewer experiments at a time")
    return size


__all__ = ["CollectorService", "register"]
