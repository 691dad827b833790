"""The one table from errors to gRPC's statuses, and what a status carries."""

from collections.abc import Mapping

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from qlog.v1.serving.statuses import fitting

from collector import errors
from collector.errors import CollectorError, FilterError, InvalidRequestError, OffsetGapError, RetryError
from collector.filters.pointer import pointer

DOMAIN = "qlog.v1"

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


__all__ = ["DOMAIN", "STATUSES", "status_of"]
