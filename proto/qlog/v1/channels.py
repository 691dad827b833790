"""Channels with credentials. Apart from these, so that help and wrong usage need no gRPC."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import grpc

from qlog.v1.credentials import Credentials

Metadata = tuple[tuple[str, str], ...]


def secured_channel(endpoint: str, credentials: Credentials, options: Sequence[tuple[str, Any]]) -> grpc.Channel:
    """A channel to HOST:PORT, which connects with the first call.

    Raises:
        CredentialsError: a file cannot be used, or the token may not go there.
    """
    token = credentials.token(endpoint)
    if credentials.tls:
        ca, key, cert = credentials.tls_files()
        channel = grpc.secure_channel(endpoint, grpc.ssl_channel_credentials(ca, key, cert), options=options)
    else:
        channel = grpc.insecure_channel(endpoint, options=options)
    if token is None:
        return channel
    return grpc.intercept_channel(channel, _Metadata((("authorization", f"Bearer {token}"),)))


def tls_trouble(said: str) -> str:
    """Why a handshake failed, from what gRPC says of an UNAVAILABLE; empty: it is not about TLS."""
    if not any(word in said for word in ("SSL", "handshak", "certificate", "Certificate", "TSI_", "Peer name")):
        return ""
    for words in ("CERTIFICATE_VERIFY_FAILED", "is not in peer certificate", "CERTIFICATE_REQUIRED", "WRONG_VERSION"):
        if words in said:
            return words.lower().replace("_", " ")
    return "the handshake failed"


def hung_up(said: str) -> bool:
    """Whether somebody took the connection and broke it off before a first call: so do servers that want TLS.

    Args:
        said: by gRPC, of an UNAVAILABLE.
    """
    return "failed to connect" in said and any(word in said for word in ("Socket closed", "reset by peer", "pipe"))


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Metadata(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Adds metadata to every call."""

    def __init__(self, added: Metadata) -> None:
        self._added = added

    def _pass(self, continuation: Any, details: Any, request: Any) -> Any:
        metadata = (*(details.metadata or ()), *self._added)
        changed = _Details(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready, details.compression
        )
        return continuation(changed, request)

    intercept_unary_unary: Any = _pass
    intercept_unary_stream: Any = _pass
    intercept_stream_unary: Any = _pass
    intercept_stream_stream: Any = _pass


__all__ = ["hung_up", "secured_channel", "tls_trouble"]
