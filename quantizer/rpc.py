"""The collector as the sender sees it: three calls, each with a deadline, and errors of our own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_status import rpc_status
from qlog.v1 import collector_pb2 as pb
from qlog.v1.addresses import CLIENT_KEEPALIVE
from qlog.v1.channels import hung_up, secured_channel, tls_trouble
from qlog.v1.collector_pb2_grpc import CollectorServiceStub
from qlog.v1.common_pb2 import Event
from qlog.v1.credentials import Credentials, CredentialsError

from quantizer.errors import (
    CollectorAwayError,
    DeliveryError,
    ExperimentDelayedError,
    ExperimentRefusedError,
    OffsetGapError,
)

STATUS_TIMEOUT_S = 5.0
APPEND_TIMEOUT_S = 20.0
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", 4 * 2**20),
    *CLIENT_KEEPALIVE,
    # A connection of our own, whose backoff is ours too.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
)
_REFUSALS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.DATA_LOSS,
    }
)
# What a server says that has made a mistake of its own; another experiment may meet none.
_MISTAKES = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.ABORTED})
_SILENCE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED})


@dataclass(frozen=True, slots=True)
class AppendStatus:
    """How much of an experiment the collector has on disk; `number` of its line once it has one."""

    committed_offset: int
    finished: bool
    number: int | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Events at consecutive offsets; none: a heartbeat."""

    offset: int
    events: tuple[Event, ...]


class CollectorSession:
    """One connection to one collector.

    Raises:
        CollectorAwayError: the credentials cannot be used now.
    """

    def __init__(self, endpoint: str, credentials: Credentials | None = None) -> None:
        self.endpoint = endpoint
        try:
            # Read anew for each connection: tokens and certificates are replaced while experiments run.
            self._channel = secured_channel(endpoint, credentials or Credentials(), CHANNEL_OPTIONS)
        except CredentialsError as error:
            raise CollectorAwayError(str(error)) from error
        self._stub = CollectorServiceStub(self._channel)

    def status(self, experiment_id: str) -> AppendStatus:
        """How much of an experiment the collector has.

        Raises:
            DeliveryError: one of its kinds.
        """
        try:
            response = self._stub.GetAppendStatus(
                pb.GetAppendStatusRequest(experiment_id=experiment_id), timeout=STATUS_TIMEOUT_S
            )
        except (grpc.RpcError, ValueError) as error:  # ValueError: the channel was closed from outside.
            raise _translated(error) from error
        number = int(response.number) if response.HasField("number") else None
        return AppendStatus(int(response.committed_offset), bool(response.finished), number)

    def append(self, experiment_id: str, batches: Sequence[Batch]) -> Iterator[tuple[int, int | None]]:
        """Send batches in one stream; yields (committed offset, number of the line or None) as they are acknowledged.

        Raises:
            DeliveryError: one of its kinds.
        """
        requests = (
            pb.AppendExperimentRequest(experiment_id=experiment_id, offset=batch.offset, events=batch.events)
            for batch in batches
        )
        try:
            for response in self._stub.AppendExperiment(requests, timeout=APPEND_TIMEOUT_S):
                yield int(response.committed_offset), int(response.number) if response.HasField("number") else None
        except (grpc.RpcError, ValueError) as error:
            raise _translated(error) from error

    def answers(self, timeout_s: float) -> bool:
        """Whether there is anybody at the other end: any answer will do, that it knows no such call as well."""
        try:
            # Calls are attributes that the stub makes for itself; its types do not know them.
            HealthStub(self._channel).Check(  # type: ignore[attr-defined]
                health_pb2.HealthCheckRequest(), timeout=timeout_s
            )
        except grpc.RpcError as error:
            return _has_details(error) or error.code() not in _SILENCE
        except ValueError:  # The channel was closed.
            return False
        return True

    def close(self) -> None:
        """End the connection, and any call that waits on it."""
        self._channel.close()


def _translated(error: Exception) -> DeliveryError:
    if not isinstance(error, grpc.RpcError):
        return CollectorAwayError("the connection was closed")
    code = error.code()
    details = " ".join((error.details() or code.name).split())
    if code == grpc.StatusCode.OUT_OF_RANGE:
        return OffsetGapError(details)
    if code in _REFUSALS:
        return ExperimentRefusedError(details)
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return CollectorAwayError("no answer in time")
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return CollectorAwayError(f"it refuses the token: {details}")
    if code == grpc.StatusCode.UNAVAILABLE and not _has_details(error):
        if reason := tls_trouble(details):
            return CollectorAwayError(
                f"no agreement on TLS: {reason}; check --tls_ca, and --tls_cert if it asks for one"
            )
        if hung_up(details):
            return CollectorAwayError("it hangs up at once; if it wants TLS, give --tls_ca")
        return CollectorAwayError("no connection")
    if code in _MISTAKES:
        return ExperimentDelayedError(f"{code.name}: {details}")
    return CollectorAwayError(f"{code.name}: {details}")


def _has_details(error: grpc.RpcError) -> bool:
    """Whether the program at the other end said it, rather than the transport."""
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]  # every error of a call is a Call as well
    except ValueError:
        return False
    return status is not None and any(detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR) for detail in status.details)


__all__ = ["AppendStatus", "Batch", "CollectorSession"]
