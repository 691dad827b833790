"""What stands around every call: errors become statuses, streams are counted, a server that stops takes no new calls.

It is an interceptor, so that no call can be without it.
"""

import logging
import math
import os
from collections.abc import Iterator
from typing import Any, NoReturn

import grpc
from grpc_status import rpc_status

from collector.errors import CollectorError
from collector.gate import Gate
from collector.limits import UNARY_S
from collector.patience import patience
from collector.statuses import status_of

logger = logging.getLogger(__name__)

# Without a deadline gRPC says that centuries remain.
_NO_DEADLINE_S = 10 * 365 * 86400.0


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


__all__ = ["Guard"]
