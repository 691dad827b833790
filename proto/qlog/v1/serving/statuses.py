"""Refusals as statuses with google.rpc details."""

from collections.abc import Iterable
from string import punctuation
from typing import NoReturn
from urllib.parse import quote

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

# What gRPC takes as the end of a call is 8 KiB, of which a little is its own.
_MOST_BYTES = 7000
_MOST_VIOLATIONS = 16
_SAFE = f"{punctuation} ".replace("%", "")


def fitted(status: status_pb2.Status) -> status_pb2.Status:
    """The status, with texts cut where it would be too large to be sent at all: clients would be told nothing then."""
    for most in (2000, 1000, 500, 250, 120, 60):
        if _size(status) <= _MOST_BYTES:
            break
        status = _cut(status, most)
    return status


def _size(status: status_pb2.Status) -> int:
    """Bytes in the trailers: the message with all but ASCII as %XX, and the status itself in base64."""
    return len(quote(status.message, safe=_SAFE)) + status.ByteSize() * 4 // 3


def _cut(status: status_pb2.Status, most: int) -> status_pb2.Status:
    details = []
    for detail in status.details:
        request = error_details_pb2.BadRequest()
        if not detail.Unpack(request):
            details.append(detail)
            continue
        del request.field_violations[_MOST_VIOLATIONS:]
        for violation in request.field_violations:
            violation.field = _shortened(violation.field, 60)
            violation.description = _shortened(violation.description, most)
        packed = AnyMessage()
        packed.Pack(request)
        details.append(packed)
    return status_pb2.Status(code=status.code, message=_shortened(status.message, most), details=details)


def _shortened(text: str, most: int) -> str:
    encoded = text.encode()
    return text if len(encoded) <= most else encoded[: most - 3].decode(errors="ignore") + "…"


def refuse(
    context: grpc.ServicerContext,
    code: grpc.StatusCode,
    reason: str,
    message: str,
    *,
    domain: str,
    more: Iterable[Message] = (),
) -> NoReturn:
    """End a call: ErrorInfo first, then whatever more there is to tell."""
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in (error_details_pb2.ErrorInfo(reason=reason, domain=domain), *more):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    context.abort_with_status(rpc_status.to_status(fitted(status)))
    raise AssertionError("unreachable: abort raises")


def retry_info(delay_s: float) -> Message:
    """When to try again."""
    delay = Duration()
    delay.FromMilliseconds(round(delay_s * 1000))
    detail: Message = error_details_pb2.RetryInfo(retry_delay=delay)
    return detail


def bad_request(field: str, message: str) -> Message:
    """Which field is wrong."""
    violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=message)
    detail: Message = error_details_pb2.BadRequest(field_violations=[violation])
    return detail


__all__ = ["bad_request", "fitted", "refuse", "retry_info"]
