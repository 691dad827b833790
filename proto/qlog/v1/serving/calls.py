"""The outermost interceptor of both servers: no call reaches its handler unknown, unread or untold.

A call is refused before its request is even parsed where its sender may not make it; what cannot be parsed is the
sender's mistake (INVALID_ARGUMENT), not ours; what nobody foresaw is INTERNAL with an incident's number, and its text
is in the log alone. However a call ends, the observers are told: audit lines, metrics.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from qlog.v1.serving.access import ADMINS, ANONYMOUS, Access, Caller, Roles, RoleTable
from qlog.v1.serving.listening import MAX_REQUEST_BYTES
from qlog.v1.serving.observing import Call, Observer, Ticket
from qlog.v1.serving.statuses import bad_request, refuse

logger = logging.getLogger(__name__)

_BEARER = "bearer "


class MalformedRequestError(Exception):
    """A message of a stream cannot be parsed."""


class TooLargeRequestError(Exception):
    """A message of a stream is larger than is taken."""


_TOO_LARGE = (grpc.StatusCode.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE")


class Calls(grpc.ServerInterceptor):
    """The interceptor.

    Args:
        access: tells who calls.
        roles: which roles each method takes; a method that is not there takes administrators only.
        domain: of the server's errors.
        observers: told of every call.
        malformed: makes the error for a message of a stream that cannot be parsed.
        too_large: the same for one that is larger than is taken.
    """

    def __init__(
        self,
        access: Access,
        roles: RoleTable,
        domain: str,
        observers: Sequence[Observer] = (),
        malformed: Callable[[str], Exception] = MalformedRequestError,
        too_large: Callable[[str], Exception] = TooLargeRequestError,
    ) -> None:
        self._access = access
        self._roles = roles
        self._domain = domain
        self._observers = tuple(observers)
        self._malformed = malformed
        self._too_large = too_large

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Wrap one call's handler."""
        handler = continuation(handler_call_details)
        # Health's watch is called in a way of its own, without a thread.
        if handler is None or handler_call_details.method == "/grpc.health.v1.Health/Watch":
            return handler
        return self._wrap(handler, handler_call_details.method)

    def _wrap(self, handler: Any, method: str) -> Any:
        many, parse = handler.request_streaming, handler.request_deserializer

        def read(data: Any, ticket: Ticket, context: grpc.ServicerContext) -> Any:
            if many:
                return self._messages(data, parse, ticket)
            if trouble := _too_large(data):
                refuse(context, *_TOO_LARGE, trouble, domain=self._domain)
            try:
                return ticket.note(parse(data))
            except DecodeError:
                message = f"the request of {_short(method)} cannot be parsed"
                refuse(
                    context,
                    grpc.StatusCode.INVALID_ARGUMENT,
                    "MALFORMED_REQUEST",
                    message,
                    domain=self._domain,
                    more=[bad_request("", message)],
                )

        def single(data: Any, context: grpc.ServicerContext) -> Any:
            with self._told(method, context) as ticket:
                return behavior(read(data, ticket, context), context)

        def streaming(data: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            with self._told(method, context) as ticket:
                yield from behavior(read(data, ticket, context), context)

        kind = f"{'stream' if many else 'unary'}_{'stream' if handler.response_streaming else 'unary'}"
        behavior = getattr(handler, kind)
        wrapped = streaming if handler.response_streaming else single
        return getattr(grpc, f"{kind}_rpc_method_handler")(wrapped, None, handler.response_serializer)

    def _messages(self, data: Iterator[bytes], parse: Callable[[bytes], Any], ticket: Ticket) -> Iterator[Any]:
        for item in data:
            if trouble := _too_large(item):
                raise self._too_large(trouble)
            try:
                message = parse(item)
            except DecodeError:
                raise self._malformed("a message of the stream cannot be parsed") from None
            yield ticket.note(message)

    @contextmanager
    def _told(self, method: str, context: Any) -> Iterator[Ticket]:
        # `context`: the stubs of ServicerContext lack code().
        start, start_s = time.perf_counter(), time.time()
        ticket = Ticket()
        finished = False
        for observer in self._observers:
            observer.began(method)
        try:
            self._admit(method, context, ticket)
            yield ticket
            finished = True
        except MalformedRequestError as error:
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST", str(error), domain=self._domain)
        except TooLargeRequestError as error:
            refuse(context, *_TOO_LARGE, str(error), domain=self._domain)
        except Exception as error:
            if context.code() is None:
                self._incident(method, context, error)
            raise
        finally:
            if self._observers:
                code = context.code() or (grpc.StatusCode.OK if finished else grpc.StatusCode.CANCELLED)
                self._tell(method, context, code, start_s, time.perf_counter() - start, ticket)

    def _admit(self, method: str, context: grpc.ServicerContext, ticket: Ticket) -> None:
        wanted = self._roles.get(method, ADMINS)
        if wanted is None:
            ticket.identity = ANONYMOUS
            return
        caller = _caller(context)
        ticket.certificate = caller.subject or ""
        identity = self._access.identify(caller)
        if identity is None:
            message = (
                "the token is not one that this server knows"
                if caller.token is not None
                else "this server asks for a token: give --token_file FILE, or send `authorization: Bearer TOKEN`"
            )
            refuse(context, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", message, domain=self._domain)
        ticket.identity = identity
        if not wanted & identity.roles:
            message = (
                f"{_short(method)} takes the role {_listed(wanted)}; {identity.name} has {_listed(identity.roles)}"
            )
            refuse(context, grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", message, domain=self._domain)

    def _incident(self, method: str, context: grpc.ServicerContext, error: Exception) -> None:
        incident = os.urandom(4).hex()
        logger.error("incident %s in %s", incident, _short(method), exc_info=error)
        message = f"internal error, incident {incident} in the server's log"
        refuse(context, grpc.StatusCode.INTERNAL, "INTERNAL", message, domain=self._domain)

    def _tell(
        self,
        method: str,
        context: grpc.ServicerContext,
        code: grpc.StatusCode,
        start_s: float,
        duration_s: float,
        ticket: Ticket,
    ) -> None:
        call = Call(
            method=method,
            who=ticket.identity.name,
            roles=ticket.identity.roles,
            peer=context.peer(),
            code=code,
            start_s=start_s,
            duration_s=duration_s,
            certificate=ticket.certificate,
            trace=_trace(context),
            subjects=tuple(ticket.subjects),
            filter=ticket.filter,
            requests=ticket.requests,
            events=ticket.events,
        )
        for observer in self._observers:
            observer.ended(call)


def _too_large(data: bytes) -> str:
    if len(data) <= MAX_REQUEST_BYTES:
        return ""
    return f"a message of {len(data)} bytes, at most {MAX_REQUEST_BYTES} are taken: send less at a time"


def _caller(context: grpc.ServicerContext) -> Caller:
    token: str | None = None
    for key, value in context.invocation_metadata() or ():
        if key == "authorization":
            text = value if isinstance(value, str) else ""
            token = text[len(_BEARER) :].strip() if text[: len(_BEARER)].lower() == _BEARER else ""
    names: Any = context.auth_context().get("x509_common_name", ())  # Bytes, one for each; the stubs say otherwise.
    subject = next(iter(names), b"").decode("utf-8", "replace")
    return Caller(token, subject or None)


def _trace(context: grpc.ServicerContext) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "traceparent" and isinstance(value, str):
            return value[:64]
    return ""


def _short(method: str) -> str:
    return method.rpartition("/")[2]


def _listed(roles: Roles) -> str:
    return " or ".join(sorted(roles)) or "none"


__all__ = ["Calls", "MalformedRequestError", "TooLargeRequestError"]
