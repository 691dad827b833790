"""Channels and statuses of gRPC: how calls are made, and what their failures mean to a user.

`client.rpc`, `client.connection`, and what is made on them (`client.api`, `client.quantizer_api`), alone import gRPC.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import grpc
from qlog.v1.addresses import CLIENT_KEEPALIVE
from qlog.v1.channels import hung_up, secured_channel, tls_trouble
from qlog.v1.credentials import Credentials, CredentialsError, stays_here

from client.errors import (
    AccessError,
    DeadlineError,
    InvalidRequestError,
    NotFoundError,
    QlogError,
    RefusedError,
    ServerError,
    StreamLostError,
    UnreachableError,
)

MAX_RECEIVE_BYTES: Final = 256 * 2**20
# How long a connection may take before nobody is taken to be there.
CONNECT_S: Final = 2.0

_QUERIES: Mapping[str, Sequence[str]] = {
    "qlog.v1.CollectorService": (
        "ListExperiments",
        "GetExperiment",
        "BatchGetExperiments",
        "CompareExperiments",
        "GetAppendStatus",
        "GetStoreInfo",
    ),
    "qlog.v1.QuantizerService": ("ListDevices", "ListModels"),
    "google.longrunning.Operations": ("ListOperations", "GetOperation"),
}
# Only what changes nothing is tried again, and only where the server cannot have begun it.
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [
                {"service": service, "method": method} for service, methods in _QUERIES.items() for method in methods
            ],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.2s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}

# What to do about a program that does not answer.
_ADVICE: Mapping[str, str] = {
    "collector": "start one with `collector serve`, or read a local store with --log_dir DIR",
    "quantizer": "start one with `quantizer serve`, or name another with --quantizer HOST:PORT",
}

# Total: every status of gRPC. UNAVAILABLE has rules of its own in `translated`.
ERRORS: Mapping[grpc.StatusCode, type[QlogError]] = {
    grpc.StatusCode.OK: ServerError,
    grpc.StatusCode.CANCELLED: ServerError,
    grpc.StatusCode.UNKNOWN: ServerError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: RefusedError,
    grpc.StatusCode.PERMISSION_DENIED: AccessError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: RefusedError,
    grpc.StatusCode.FAILED_PRECONDITION: RefusedError,
    grpc.StatusCode.ABORTED: RefusedError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequestError,
    grpc.StatusCode.UNIMPLEMENTED: RefusedError,
    grpc.StatusCode.INTERNAL: ServerError,
    grpc.StatusCode.UNAVAILABLE: UnreachableError,
    grpc.StatusCode.DATA_LOSS: RefusedError,
    grpc.StatusCode.UNAUTHENTICATED: AccessError,
}
# Ends of a stream that say nothing of what was asked for: the connection broke, or the server stopped.
_BROKEN = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)


def open_channel(endpoint: str, credentials: Credentials) -> grpc.Channel:
    """A channel to HOST:PORT; connects with the first call.

    Raises:
        AccessError: a file of the credentials cannot be used, or the token may not go there.
    """
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
        *CLIENT_KEEPALIVE,
        ("grpc.min_reconnect_backoff_ms", int(CONNECT_S * 1000)),
        ("grpc.initial_reconnect_backoff_ms", 200),
        # A new channel is a new attempt: it does not wait out the backoff of one before it.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ]
    if stays_here(endpoint):
        options.append(("grpc.enable_http_proxy", 0))
    try:
        return secured_channel(endpoint, credentials, options)
    except CredentialsError as error:
        raise AccessError(str(error)) from None


def translated(error: grpc.RpcError, endpoint: str, program: str, *, stream: bool = False) -> QlogError:
    """What a failed call means to a user, in one line.

    Args:
        program: "collector" or "quantizer".
        stream: the call was a stream that may be resumed.
    """
    code: grpc.StatusCode = error.code()
    said = " ".join((error.details() or code.name).split())
    details = _details(error)
    if stream and code in _BROKEN and "ErrorInfo" not in details:
        return StreamLostError(f"the connection to the {program} at {endpoint} is lost")
    if code is grpc.StatusCode.UNAVAILABLE:
        if "ErrorInfo" not in details and (reason := tls_trouble(said)):
            return AccessError(
                f"the {program} at {endpoint} and this program do not agree on TLS ({reason}): check --tls_ca, "
                "the name in its certificate, and --tls_cert where it asks for yours"
            )
        if "ErrorInfo" not in details:
            if hung_up(said):
                return UnreachableError(
                    f"what listens at {endpoint} hangs up before it answers: if that {program} wants TLS, give "
                    "--tls_ca FILE, or --tls_ca system"
                )
            return UnreachableError(f"no {program} answers at {endpoint}: {_ADVICE[program]}")
        later = f"the {program} at {endpoint} cannot do it now: {said}{_again(details)}"
        return StreamLostError(later) if stream else RefusedError(later)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineError(
            f"the {program} at {endpoint} did not answer in time: try again, or give it more --timeout"
        )
    if code is grpc.StatusCode.UNIMPLEMENTED and "ErrorInfo" not in details:
        return RefusedError(f"what answers at {endpoint} is no {program} of this version: {said}")
    kind = ERRORS[code]
    if issubclass(kind, ServerError):
        return kind(f"the {program} at {endpoint} failed ({code.name}): {said}")
    if code is grpc.StatusCode.INVALID_ARGUMENT and (picture := _picture(details)):
        pointed = InvalidRequestError(said)
        pointed.picture = picture
        return pointed
    return kind(f"{said}{_violations(details, said)}{_again(details)}")


def _details(error: grpc.RpcError) -> dict[str, Any]:
    """The google.rpc details of a status, by the name of their message."""
    metadata: Iterable[Any] = error.trailing_metadata() or ()
    packed = next((value for key, value in metadata if key == "grpc-status-details-bin"), None)
    if packed is None:
        return {}
    from google.protobuf.message import DecodeError
    from google.rpc import error_details_pb2, status_pb2

    found: dict[str, Any] = {}
    try:
        for detail in status_pb2.Status.FromString(packed).details:
            name = detail.TypeName().rpartition(".")[2]
            kind = getattr(error_details_pb2, name, None)
            if kind is not None:
                found[name] = message = kind()
                detail.Unpack(message)
    except DecodeError:
        # A status whose details cannot be read is still a status.
        return found
    return found


def _violations(details: Mapping[str, Any], said: str) -> str:
    """The fields that a BadRequest names, as far as the message does not say it already."""
    if "BadRequest" not in details:
        return ""
    violations: Iterable[Any] = details["BadRequest"].field_violations
    news = [violation for violation in violations if violation.description not in said]
    return "".join(f"; {violation.field}: {' '.join(violation.description.split())}" for violation in news)


def _picture(details: Mapping[str, Any]) -> str:
    """What stands below the first line of a violation: a filter, and a caret under the place that is wrong."""
    violations = details["BadRequest"].field_violations if "BadRequest" in details else ()
    return next((str(one.description).partition("\n")[2] for one in violations if "\n" in one.description), "")


def _again(details: Mapping[str, Any]) -> str:
    if "RetryInfo" not in details:
        return ""
    delay = details["RetryInfo"].retry_delay
    return f"; try again in {max(1, round(delay.seconds + delay.nanos / 1e9))} s"


__all__ = ["ERRORS", "MAX_RECEIVE_BYTES", "open_channel", "translated"]
