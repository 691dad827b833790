"""What stands around every call: errors become statuses, streams are counted, a server that stops takes no new calls.

It is an interceptor, so that no call can be without it.
"""

import logging
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from qlog.v1.serving.statuses import fitting

from collector import errors
from collector.errors import CollectorError, FilterError, InvalidRequestError, OffsetGapError, RetryError
from collector.filters.pointer import pointer
from collector.limits import UNARY_S
from collector.patience import patience

logger = logging.getLogger(__name__)

DOMAIN = "qlog.v1"

# Without a deadline gRPC says that centuries remain.
_NO_DEADLINE_S = 10 * 365 * 86400.0

# The one table from errors to statuses: (status, ErrorInfo's reason). A test keeps it total.
STATUSES: Mapping[type[CollectorError], tuple[int, str]] = {
    errors.CollectorError: (code_pb2.INTERNAL, "INTERNAL"),
    errors.StartError: (code_pb2.FAILED_PRECONDITION, "CANNOT_START"),
    errors.StoreAccessError: (code_pb2.FAILED_PRECONDITION, "STORE_INACCESSIBLE"),
    errors.LockedError: (code_pb2.FAILED_PRECONDITION, "STORE_LOCKED"),
    errors.NetworkFileSystemError: (code_pb2.FAILED_PRECONDITION, "NETWORK_FILE_SYSTEM"),
    errors.ListenError: (code_pb2.FAILED_PRECONDITION, "CANNOT_LISTEN"),
    errors.DamageError: (code_pb2.FAILED_PRECONDITION, "STORE_DAMAGED"),
    errors.TokenFileError: (code_pb2.FAILED_PRECONDITION, "TOKEN_FILE"),
    errors.TracesError: (code_pb2.FAILED_PRECONDITION, "CANNOT_TRACE"),
    errors.InvalidRequestError: (code_pb2.INVALID_ARGUMENT, "INVALID_REQUEST"),
    errors.FilterError: (code_pb2.INVALID_ARGUMENT, "INVALID_FILTER"),
    errors.AmbiguousRefError: (code_pb2.INVALID_ARGUMENT, "AMBIGUOUS_REF"),
    errors.NotFoundError: (code_pb2.NOT_FOUND, "EXPERIMENT_NOT_FOUND"),
    errors.OffsetGapError: (code_pb2.OUT_OF_RANGE, "OFFSET_GAP"),
    errors.EndedError: (code_pb2.FAILED_PRECONDITION, "EXPERIMENT_ENDED"),
    errors.ReadOnlyError: (code_pb2.FAILED_PRECONDITION, "STORE_READ_ONLY"),
    errors.CorruptLineError: (code_pb2.DATA_LOSS, "CORRUPT_LINE"),
    errors.ResponseTooLargeError: (code_pb2.OUT_OF_RANGE, "RESPONSE_TOO_LARGE"),
    errors.TooSlowError: (code_pb2.DEADLINE_EXCEEDED, "TOO_SLOW"),
    errors.GoneError: (code_pb2.CANCELLED, "GONE"),
    errors.RequestTooLargeError: (code_pb2.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE"),
    errors.UnsupportedError: (code_pb2.UNIMPLEMENTED, "NOT_SUPPORTED_YET"),
    errors.RetryError: (code_pb2.UNAVAILABLE, "TRY_AGAIN"),
    errors.StoreFullError: (code_pb2.RESOURCE_EXHAUSTED, "STORE_FULL"),
    errors.StoreUnavailableError: (code_pb2.UNAVAILABLE, "STORE_UNAVAILABLE"),
    errors.TooManyStreamsError: (code_pb2.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS"),
    errors.DrainingError: (code_pb2.UNAVAILABLE, "DRAINING"),
}


def status_of(error: CollectorError) -> status_pb2.Status:
    """The rich status of an error: ErrorInfo always, BadRequest with the field, RetryInfo where trying again helps."""
    code, reason = STATUSES[type(error)]
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN)
    details: list[Message] = [info]
    if isinstance(error, OffsetGapError):
        info.metadata["wanted_offset"] = str(error.wanted_offset)
    described = str(error)
    if isinstance(error, FilterError) and error.text:
        # Three lines: what is wrong, the filter, and a caret under the place.
        described = f"{error}\n{pointer(error.text, error.start, error.end)}"
    if isinstance(error, InvalidRequestError):
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=described)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, RetryError):
        delay = Duration()
        delay.FromMilliseconds(round(error.retry_s * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return fitting(status_pb2.Status(code=code, message=str(error), details=[_packed(detail) for detail in details]))


def _packed(detail: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed


class Gate:
    """Counts streams, and knows when the server stops.

    Args:
        max_streams: at a time; each holds a thread for as long as it lasts.
    """

    def __init__(self, max_streams: int) -> None:
        self._max_streams = max_streams
        self._streams = 0
        self._calls = 0
        self._draining = False
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._wakers: list[Callable[[], None]] = []

    def streams(self) -> tuple[int, int]:
        """How many there are, and how many there may be."""
        return self._streams, self._max_streams

    @contextmanager
    def call(self) -> Iterator[None]:
        """Count a call, stream or not, while it lasts."""
        with self._lock:
            self._calls += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1
                self._idle.notify_all()

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no call is left; whether that is so."""
        with self._lock:
            return self._idle.wait_for(lambda: self._calls == 0, timeout_s)

    def draining(self) -> bool:
        """Whether the server is stopping."""
        return self._draining

    def drain(self) -> None:
        """From now on calls are refused, and streams end."""
        with self._lock:
            self._draining = True
            wakers = list(self._wakers)
        for wake in wakers:
            wake()

    @contextmanager
    def waker(self, wake: Callable[[], None]) -> Iterator[None]:
        """Have `wake` called when the server stops, at once if it does already."""
        with self._lock:
            self._wakers.append(wake)
            draining = self._draining
        if draining:
            wake()
        try:
            yield
        finally:
            with self._lock:
                self._wakers.remove(wake)

    def check(self) -> None:
        """Raise DrainingError where the server is stopping."""
        if self._draining:
            raise errors.DrainingError("the collector is stopping: try again in a moment")

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Take one of the streams."""
        with self._lock:
            if self._streams >= self._max_streams:
                raise errors.TooManyStreamsError(
                    f"all {self._max_streams} streams of this collector are taken: try again later"
                )
            self._streams += 1
        try:
            yield
        finally:
            with self._lock:
                self._streams -= 1


class Guard(grpc.ServerInterceptor):
    """The interceptor.

    Args:
        gate: counts streams.
        unary_s: what a call that is no stream may take where it has no deadline of its own.
    """

    def __init__(self, gate: Gate, unary_s: float = UNARY_S) -> None:
        self._gate = gate
        self._unary_s = unary_s

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Wrap one call's handler."""
        handler = continuation(handler_call_details)
        # Health has to answer while the server stops, and holds no thread.
        if handler is None or handler_call_details.method.startswith("/grpc.health.v1.Health/"):
            return handler
        return self.wrap(handler)

    def wrap(self, handler: Any) -> Any:
        """A handler of the same kind that keeps the rules of this module."""
        serialization = (handler.request_deserializer, handler.response_serializer)
        if handler.response_streaming:
            kind, behavior = (
                ("stream_stream", handler.stream_stream)
                if handler.request_streaming
                else (
                    "unary_stream",
                    handler.unary_stream,
                )
            )
            guarded = self._streaming(behavior)
        else:
            kind, behavior = (
                ("stream_unary", handler.stream_unary)
                if handler.request_streaming
                else (
                    "unary_unary",
                    handler.unary_unary,
                )
            )
            guarded = self._single(behavior, holds_stream=handler.request_streaming)
        return getattr(grpc, f"{kind}_rpc_method_handler")(guarded, *serialization)

    def _single(self, behavior: Any, *, holds_stream: bool) -> Any:
        def call(request: Any, context: grpc.ServicerContext) -> Any:
            with self._gate.call():
                return answer(request, context)

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                self._gate.check()
                if holds_stream:
                    with self._gate.stream():
                        return behavior(request, context)
                # gRPC ends a call at its own deadline: whoever called is gone then.
                left = context.time_remaining()
                limit_s = self._unary_s if left is None or left > _NO_DEADLINE_S else math.inf
                with patience(limit_s, lambda: not context.is_active()):
                    return behavior(request, context)
            except Exception as error:  # noqa: BLE001 - everything becomes a status
                _abort(context, error)

        return call

    def _streaming(self, behavior: Any) -> Any:
        def call(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            with self._gate.call():
                yield from answers(request, context)

        def answers(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                self._gate.check()
                with self._gate.stream(), patience(math.inf, lambda: not context.is_active()):
                    yield from behavior(request, context)
            except Exception as error:  # noqa: BLE001 - everything becomes a status
                _abort(context, error)

        return call


def _abort(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    if not isinstance(error, CollectorError):
        incident = os.urandom(4).hex()
        logger.error("incident %s", incident, exc_info=error)
        error = CollectorError(f"internal error, incident {incident} in the collector's log")
    context.abort_with_status(rpc_status.to_status(status_of(error)))
    raise AssertionError("unreachable: abort raises")


__all__ = ["DOMAIN", "STATUSES", "Gate", "Guard", "status_of"]
