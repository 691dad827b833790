"""Where a server listens, and what that takes: loopback as it is, elsewhere with TLS and tokens."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from qlog.v1.addresses import SERVER_KEEPALIVE, bracketed, is_loopback, listen_trouble
from qlog.v1.serving.access import Access, OpenAccess, TokenAccess
from qlog.v1.serving.certificates import Certificates

logger = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 4 << 20
# gRPC itself refuses what is larger than this, in words of its own; what lies between is refused in ours.
_HARD_LIMIT_BYTES = 2 * MAX_REQUEST_BYTES
# Calls at a time of one connection, and bytes of metadata of one call: above the first the call is refused now and
# then, above the second always.
_MOST_STREAMS_PER_CONNECTION = 512
_METADATA_BYTES, _MOST_METADATA_BYTES = 8 << 10, 16 << 10
_HANDSHAKE_MS = 10_000


class ListeningError(Exception):
    """An address cannot be listened on as asked; one line that says what to do."""


class OpenListeningError(ListeningError):
    """Other machines would reach a server that asks nobody who they are."""


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a server listens, and whom it lets in.

    Attributes:
        host, port: the address; port 0: any free one.
        insecure: what is missing below is meant so.
        tls_cert, tls_key: files of the server's certificate.
        tls_client_ca: file of the authorities whose clients' certificates are asked for.
        token_file: of tokens and their roles.
    """

    host: str = "127.0.0.1"
    port: int = 0
    insecure: bool = False
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_client_ca: str | None = None
    token_file: str | None = None

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.tls_cert is not None

    @property
    def asks(self) -> bool:
        """Whether clients have to prove who they are."""
        return self.token_file is not None or self.tls_client_ca is not None

    def check(self, *, option: str = "--host") -> None:
        """Refuse what contradicts itself, and addresses that others reach unless that is safe or meant.

        Args:
            option: that gave the host, for messages.

        Raises:
            OpenListeningError: others would reach it.
            ListeningError: there is no such address, or an option lacks another.
        """
        if (self.tls_cert is None) != (self.tls_key is None):
            given, other = ("--tls_cert", "--tls_key") if self.tls_key is None else ("--tls_key", "--tls_cert")
            raise OpenListeningError(f"{given} needs {other} beside it")
        if self.tls_client_ca is not None and not self.tls:
            raise OpenListeningError("--tls_client_ca needs --tls_cert and --tls_key beside it")
        check_reach(self.host, lacks=self._lacks(), insecure=self.insecure, option=option)

    def _lacks(self) -> str:
        missing = [] if self.tls else ["--tls_cert and --tls_key"]
        if not self.asks:
            missing.append("--token_file")
        return ", and ".join(missing)


def check_reach(host: str, *, lacks: str, insecure: bool, option: str = "--host") -> None:
    """Refuse an address that other machines reach, where something is lacking and that is not said to be meant.

    Raises:
        OpenListeningError: so it is.
        ListeningError: there is no such address.
    """
    try:
        only_here = is_loopback(host)
    except ValueError as error:
        raise ListeningError(str(error)) from None
    if lacks and not only_here and not insecure:
        raise OpenListeningError(
            f"other machines reach {host!r}: give {lacks}, or {option} 127.0.0.1, or --insecure if everybody who "
            "reaches it may read and write, unencrypted"
        )


def server_options(*, max_send_bytes: int = -1) -> Sequence[tuple[str, Any]]:
    """The options of gRPC that bound what arrives."""
    return (
        # Else a second server could listen on the same port, and each would get a part of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", _HARD_LIMIT_BYTES),
        ("grpc.max_send_message_length", max_send_bytes),
        ("grpc.max_concurrent_streams", _MOST_STREAMS_PER_CONNECTION),
        ("grpc.max_metadata_size", _METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", _MOST_METADATA_BYTES),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
        *SERVER_KEEPALIVE,
    )


def access_of(listening: Listening) -> Access:
    """Who may call: by the token file, or everybody (who has a certificate, where those are asked for).

    Raises:
        CredentialsError: the token file cannot be used.
    """
    return OpenAccess() if listening.token_file is None else TokenAccess(Path(listening.token_file))


def add_port(server: grpc.Server, listening: Listening) -> int:
    """Listen; the port.

    Raises:
        ListeningError: the address cannot be had.
        CredentialsError: a file of TLS cannot be used.
    """
    address = f"{bracketed(listening.host)}:{listening.port}"
    try:
        if listening.tls_cert is not None and listening.tls_key is not None:
            certificates = Certificates(listening.tls_cert, listening.tls_key, listening.tls_client_ca)
            port = int(server.add_secure_port(address, certificates.credentials()))
        else:
            port = int(server.add_insecure_port(address))
    except RuntimeError:
        port = 0
    if port == 0:
        reason = listen_trouble(listening.host, listening.port)
        raise ListeningError(f"cannot listen on {address}: {reason}; choose another with --host and --port")
    return port


__all__ = [
    "MAX_REQUEST_BYTES",
    "Listening",
    "ListeningError",
    "OpenListeningError",
    "access_of",
    "add_port",
    "check_reach",
    "server_options",
]
