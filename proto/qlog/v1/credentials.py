"""How clients prove who they are and know whom they talk to: TLS, client certificates, bearer tokens."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

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
            self.tls_files()
        self.token(endpoint)

    def token(self, endpoint: str) -> str | None:
        """The token for an endpoint, read now; None: there is none.

        Raises:
            CredentialsError: see `check`.
        """
        if self.token_file is None:
            return None
        if not self.tls and not self.insecure and not stays_here(endpoint):
            raise CredentialsError(
                f"the token would go to {endpoint} unencrypted: give --tls_ca FILE, or --insecure if that is meant"
            )
        return read_token(Path(self.token_file))

    def tls_files(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Authorities, key and certificate, read now.

        Raises:
            CredentialsError: see `check`.
        """
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


__all__ = [
    "SYSTEM_CA",
    "VARIABLES",
    "Credentials",
    "CredentialsError",
    "credentials_from",
    "read_public",
    "stays_here",
]
