"""Streams of the log's bytes: exports, and backups; each goes on where it was broken off."""

from collections.abc import Iterator

import orjson
from qlog.v1 import collector_pb2

from collector import limits, patience
from collector.errors import InvalidRequestError
from collector.filters.meaning import current_time
from collector.gate import Gate
from collector.listing import matching_entries
from collector.names import LOG_NAME, META_NAME
from collector.store import Store

_Exported = Iterator[collector_pb2.ExportExperimentsResponse]
_FORMATS = (collector_pb2.EXPORT_FORMAT_UNSPECIFIED, collector_pb2.EXPORT_FORMAT_JSONL)


def export(store: Store, request: collector_pb2.ExportExperimentsRequest, gate: Gate) -> _Exported:
    """The log up to its last whole line of now: as it stands, or the lines that match, or as they are shown.

    Raises:
        CollectorError: the request is wrong, or the server stops.
    """
    if request.format not in _FORMATS:
        raise InvalidRequestError("format", f"there is no format {request.format}")
    place = _place_of(request.resume_token)
    store.refresh()
    if request.as_shown:
        yield from _shown(store, request.filter, place, gate)
    elif request.filter.strip():
        yield from _matching(store, request.filter, place, gate)
    else:
        yield from _whole(store, place, gate)


def _whole(store: Store, place: int, gate: Gate) -> _Exported:
    # The log only grows: up to here it is the same at any moment.
    end = store.committed_size()
    while place < end:
        gate.check()
        chunk = b"".join(store.chunks(place, min(end, place + limits.EXPORT_CHUNK_BYTES)))
        if not chunk:
            return
        place += len(chunk)
        yield collector_pb2.ExportExperimentsResponse(chunk=chunk, resume_token=str(place))


def _shown(store: Store, text: str, number: int, gate: Gate) -> _Exported:
    """The lines from a number on, with what was said of each and completed by its amendment."""
    for entry in matching_entries(store, text, current_time(), first=number):
        gate.check()
        patience.check()
        if entry.corrupt:
            continue
        place = entry.number
        said = store.annotation(entry)
        record = store.record(entry) | {
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


def _matching(store: Store, text: str, number: int, gate: Gate) -> _Exported:
    """The lines from a number on that match, as they stand."""
    for entry in matching_entries(store, text, current_time(), first=number):
        gate.check()
        patience.check()
        place, end = entry.offset, entry.offset + entry.length
        while place < end:
            piece = b"".join(store.chunks(place, min(end, place + limits.EXPORT_CHUNK_BYTES)))
            if not piece:
                return
            place += len(piece)
            last = place >= end
            if last and not piece.endswith(b"\n"):
                piece += b"\n"
            token = str(entry.number + 1) if last else ""
            yield collector_pb2.ExportExperimentsResponse(chunk=piece, resume_token=token)


def backup(store: Store, gate: Gate) -> Iterator[collector_pb2.BackupStoreResponse]:
    """The store's files up to their last whole lines of now."""
    store.refresh()
    # Whatever the one says is of lines that the other has: its size is taken first.
    meta_size, log_size = store.meta.size, store.committed_size()
    for name, size, chunks in (
        (LOG_NAME, log_size, store.chunks),
        (META_NAME, meta_size, store.meta.chunks),
    ):
        place = 0
        while place < size or place == 0:
            gate.check()
            chunk = b"".join(chunks(place, min(size, place + limits.EXPORT_CHUNK_BYTES)))
            yield collector_pb2.BackupStoreResponse(file=name, offset=place, chunk=chunk, size_bytes=size)
            if not chunk:
                break
            place += len(chunk)


def _place_of(token: str) -> int:
    if not token:
        return 0
    if not (token.isascii() and token.isdigit() and len(token) < 19):
        raise InvalidRequestError("resume_token", "resume_token is not one that this server gave")
    return int(token)


__all__ = ["backup", "export"]
