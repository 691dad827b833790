"""Refusals as statuses with google.rpc details."""

from collections.abc import Iterable
from typing import NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

# Of an answer's metadata, for which clients have 8 KiB: the message is there twice.
_MOST_MESSAGE, _MOST_DETAILS, _MOST_VIOLATIONS = 1536, 3072, 24


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
    context.abort_with_status(rpc_status.to_status(fitting(status)))
    raise AssertionError("unreachable: abort raises")


def fitting(status: status_pb2.Status) -> status_pb2.Status:
    """A status that fits the metadata of an answer, whatever was quoted in it: texts that are too long are cut."""
    status.message = shortened(status.message, _MOST_MESSAGE)
    if status.ByteSize() <= _MOST_MESSAGE + _MOST_DETAILS:
        return status
    for detail in status.details:
        wrong = error_details_pb2.BadRequest()
        if detail.Unpack(wrong):
            del wrong.field_violations[_MOST_VIOLATIONS:]
            for violation in wrong.field_violations:
                share = _MOST_DETAILS // len(wrong.field_violations)
                violation.field = shortened(violation.field, share // 4)
                violation.description = shortened(violation.description, share // 2)
            detail.Pack(wrong)
    return status


def shortened(text: str, most: int) -> str:
    """The beginning of a text that takes so many bytes at most in a header, where three stand for one beyond ASCII."""
    if len(text) * 12 <= most or _carried(text) <= most:
        return text
    kept = text[:most]
    while _carried(kept) > most - 3:
        kept = kept[: len(kept) * 3 // 4]
    return f"{kept}..."


def _carried(text: str) -> int:
    return sum(1 if 0x20 <= byte < 0x7F else 3 for byte in text.encode("utf-8", "replace"))


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


__all__ = ["bad_request", "fitting", "refuse", "retry_info", "shortened"]
