"""Refusals as statuses with google.rpc details."""

from collections.abc import Iterable
from typing import NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status


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
    context.abort_with_status(rpc_status.to_status(status))
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


__all__ = ["bad_request", "refuse", "retry_info"]
