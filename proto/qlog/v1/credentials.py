"""How clients prove who they are and know whom they talk to: TLS, client certificates, bearer tokens."""

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc

from qlog.v1.secrets import CredentialsError, read_secret, read_token

# --tls_ca system: the certification authorities that gRPC trusts by itself.
SYSTEM_CA: Final = "system"
# The variables that stand for the options below, on all programs that are clients.
VARIABLES: Final[Mapping[str, str]] = {
    "tls_ca": "QLOG_TLS_CA",
    "tls_cert": "QLOG_TLS_CERT",
    "tls_key": "QLOG_TLS_KEY",
    "token_file": "QLOG_TOKEN_FILE",
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client was given to connect with; all None: neither encryption nor a token.

    Attributes:
        tls_ca: file of the certification authorities that servers are checked against, or "system".
        tls_cert, tls_key: files of the client's own certificate.
        token_file: of the one token to send.
        insecure: the token may go unencrypted to another machine.
    """

    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    token_file: str | None = None
    insecure: bool = False

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.tls_ca is not None or self.tls_cert is not None or self.tls_key is not None

    def check(self, endpoint: str) -> None:
        """See that all files can be used now, and that the token may be sent to an endpoint.

        Raises:
            CredentialsError: one line that says what to do.
        """
        if (self.tls_cert is None) != (self.tls_key is None):
            given, other = ("--tls_cert", "--tls_key") if self.tls_key is None else ("--tls_key", "--tls_cert")
            raise CredentialsError(f"{given} needs {other} beside it")
        if self.tls:
            self._tls_files()
        self._token(endpoint)

    def channel(
        self,
        endpoint: str,
        options: Sequence[tuple[str, Any]],
        more_metadata: "Callable[[], Metadata] | None" = None,
    ) -> grpc.Channel:
        """A channel to HOST:PORT, which connects with the first call.

        Args:
            endpoint: HOST:PORT.
            options: of gRPC.
            more_metadata: asked at each call, for what goes along with it.

        Raises:
            CredentialsError: see `check`.
        """
        token = self._token(endpoint)
        if self.tls:
            ca, key, cert = self._tls_files()
            channel = grpc.secure_channel(endpoint, grpc.ssl_channel_credentials(ca, key, cert), options=options)
        else:
            channel = grpc.insecure_channel(endpoint, options=options)
        bearer: Metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        if not bearer and more_metadata is None:
            return channel
        return grpc.intercept_channel(channel, _Metadata(bearer, more_metadata or (lambda: ())))

    def _token(self, endpoint: str) -> str | None:
        if self.token_file is None:
            return None
        if not self.tls and not self.insecure and not stays_here(endpoint):
            raise CredentialsError(
                f"the token would go to {endpoint} unencrypted: give --tls_ca FILE, or --insecure if that is meant"
            )
        return read_token(Path(self.token_file))

    def _tls_files(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        ca = None if self.tls_ca in (None, SYSTEM_CA) else read_public(str(self.tls_ca), "--tls_ca")
        cert = None if self.tls_cert is None else read_public(self.tls_cert, "--tls_cert")
        key = None if self.tls_key is None else read_secret(Path(self.tls_key), "the key")
        return ca, key, cert


def credentials_from(values: Mapping[str, object]) -> Credentials:
    """The credentials among named values; what is empty is not given."""
    given = {name: str(values[name]) for name in VARIABLES if values.get(name)}
    return Credentials(**given, insecure=bool(values.get("insecure")))


def stays_here(endpoint: str) -> bool:
    """Whether HOST:PORT is this machine by its very name: no resolver is asked, since its answers can be forged."""
    host = endpoint.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def read_public(path: str, option: str) -> bytes:
    """The content of a file with certificates.

    Raises:
        CredentialsError: it cannot be read, or holds none.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise CredentialsError(f"{option} {path} cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise CredentialsError(f"{option} {path!r} is no path") from None
    if b"-----BEGIN CERTIFICATE-----" not in content:
        raise CredentialsError(f"{option} {path} holds no certificate in PEM form")
    return content


Metadata = tuple[tuple[str, str], ...]


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

    def __init__(self, fixed: Metadata, more: Callable[[], Metadata]) -> None:
        self._fixed = fixed
        self._more = more

    def _pass(self, continuation: Any, details: Any, request: Any) -> Any:
        metadata = (*(details.metadata or ()), *self._fixed, *self._more())
        changed = _Details(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready, details.compression
        )
        return continuation(changed, request)

    intercept_unary_unary = _pass
    intercept_unary_stream = _pass
    intercept_stream_unary = _pass
    intercept_stream_stream = _pass


__all__ = [
    "SYSTEM_CA",
    "VARIABLES",
    "Credentials",
    "CredentialsError",
    "Metadata",
    "credentials_from",
    "read_public",
    "stays_here",
]
