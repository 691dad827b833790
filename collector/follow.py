"""What a watcher gets: the events of experiments from wherever it stands, as they come, and each one's end."""

import base64
import binascii
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from qlog.v1 import collector_pb2
from qlog.v1 import common_pb2 as pb

from collector.errors import DrainingError, InvalidRequestError
from collector.fold import events_from_payload
from collector.index import Entry
from collector.limits import WATCH_CHUNK_BYTES
from collector.refs import resolve
from collector.store import Store
from collector.views import Views
from collector.watchers import Watcher

# After something came, this is waited for more of it: events travel in batches, and many watchers cost little.
_GATHER_S = 0.05
# How often a watcher looks without having been rung for (lines that other programs append ring no bell).
_LOOK_S = 1.0

Responses = Iterator[collector_pb2.WatchExperimentsResponse]


@dataclass(frozen=True)
class Link:
    """The watcher's side of the line.

    Attributes:
        gone: it hung up.
        draining: the server is stopping.
    """

    gone: Callable[[], bool]
    draining: Callable[[], bool]


class Follower:
    """One WatchExperiments stream.

    Args:
        store: to follow.
        views: of its experiments.
        request: what is asked for.

    Raises:
        CollectorError: there is no such experiment, or the token is not one of this request.
    """

    def __init__(self, store: Store, views: Views, request: collector_pb2.WatchExperimentsRequest) -> None:
        self._store = store
        self._views = views
        self._one: str | None = None
        ended: Entry | None = None
        if request.experiment_id:
            found = resolve(store, request.experiment_id, "experiment_id")
            ended = found if isinstance(found, Entry) else None
            self._one = ended.experiment_id if ended is not None else str(found)
        # Nothing but its end is told of one that had ended before; one who comes back gets the rest.
        self._ended = None if request.resume_token else ended
        self._watcher = self._watcher_from(request.resume_token)

    def responses(self, link: Link) -> Responses:
        """The stream; ends when the one experiment has ended, or the watcher is gone.

        Raises:
            DrainingError: the server is stopping.
        """
        if self._ended is not None:
            yield self._end(self._ended)
            return
        watchers = self._store.watchers
        watchers.join(self._watcher)
        try:
            while not link.gone():
                # What has come is still told to those who can take it at once.
                draining = link.draining()
                rung = watchers.rung()
                came = False
                for response in self._news():
                    came = True
                    yield response
                    if self._one is not None and response.HasField("ended"):
                        return
                if draining:
                    raise DrainingError("the collector is stopping: watch again in a moment")
                if came:
                    time.sleep(_GATHER_S)
                else:
                    watchers.wait(rung, _LOOK_S, link.gone)
        finally:
            watchers.leave(self._watcher)

    def _news(self) -> Responses:
        """Everything that came since, as far as it is there now."""
        if self._one is not None:
            entry = self._store.index().by_id(self._one)
            yield from self._events(self._one)
            if entry is not None:
                yield self._end(entry)
            return
        running = list(self._store.running())
        index = self._store.index()
        while self._watcher.lines is not None and (entry := index.by_number(self._watcher.lines)) is not None:
            if entry.experiment_id:
                yield from self._events(entry.experiment_id)
            self._watcher.lines += 1
            self._watcher.cursors.pop(entry.experiment_id, None)
            yield self._end(entry)
        for experiment_id in running:
            if index.by_id(experiment_id) is None:
                yield from self._events(experiment_id)

    def _events(self, experiment_id: str) -> Responses:
        cursors = self._watcher.cursors
        offset = cursors.get(experiment_id, 0)
        while batches := self._store.events(experiment_id, offset, max_bytes=WATCH_CHUNK_BYTES):
            for first, count, payload in batches:
                for events in _pieces(payload, offset - first):
                    response = collector_pb2.WatchExperimentsResponse(
                        experiment_id=experiment_id, offset=offset, events=events
                    )
                    offset += len(events)
                    cursors[experiment_id] = offset
                    response.resume_token = self._token()
                    yield response
                # What could not be read is left out.
                offset = cursors[experiment_id] = first + count

    def _end(self, entry: Entry) -> collector_pb2.WatchExperimentsResponse:
        return collector_pb2.WatchExperimentsResponse(
            experiment_id=entry.experiment_id,
            offset=entry.events or 0,
            resume_token=self._token(),
            ended=self._views.of_entry(entry, full=False),
        )

    def _token(self) -> str:
        text = json.dumps([self._one, self._watcher.lines, self._watcher.cursors], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode()

    def _watcher_from(self, token: str) -> Watcher:
        if not token:
            if self._one is not None:
                return Watcher({self._one: 0})
            return Watcher(lines=self._store.index().count())
        try:
            one, lines, cursors = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
            places = [*cursors.values(), 0 if lines is None else lines]
            valid = all(type(place) is int and 0 <= place < 2**63 for place in places) and (lines is None) == bool(one)
        except (ValueError, TypeError, AttributeError, binascii.Error, RecursionError):
            valid, one, lines, cursors = False, None, None, {}
        if not valid:
            raise InvalidRequestError("resume_token", "resume_token is not one that this server gave")
        if one != self._one:
            raise InvalidRequestError("resume_token", "resume_token belongs to a watch of something else: begin anew")
        return Watcher(cursors, lines)


def _pieces(payload: bytes, skip: int) -> Iterator[list[pb.Event]]:
    """The events of a stored batch after the first `skip`, in pieces that fit a message."""
    try:
        events = events_from_payload(payload)
    except DecodeError:
        return
    piece: list[pb.Event] = []
    size = 0
    for event in events[max(skip, 0) :]:
        size += event.ByteSize()
        if piece and size > WATCH_CHUNK_BYTES:
            yield piece
            piece, size = [], event.ByteSize()
        piece.append(event)
    if piece:
        yield piece


__all__ = ["Follower", "Link"]
