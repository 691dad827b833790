"""A server's certificate: checked when it is read, and read again when its files have changed."""

import logging
from collections.abc import Iterable
from pathlib import Path

import grpc

from qlog.v1.credentials import read_public
from qlog.v1.secrets import CredentialsError, read_secret

logger = logging.getLogger(__name__)


class Certificates:
    """The server's certificate, read again when its files have changed: certificates are short-lived.

    Args:
        cert, key: its files.
        client_ca: of the authorities whose clients' certificates are asked for; None: none are.
    """

    def __init__(self, cert: str, key: str, client_ca: str | None) -> None:
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._files = [Path(file) for file in (cert, key, client_ca) if file is not None]
        self._seen = marks_of(self._files)

    def credentials(self) -> grpc.ServerCredentials:
        """For a port.

        Raises:
            CredentialsError: a file cannot be used.
        """
        return grpc.dynamic_ssl_server_credentials(
            self._read(),
            self._changed,  # type: ignore[arg-type]  # None, which the stubs do not know: nothing has changed
            require_client_authentication=self._client_ca is not None,
        )

    def _read(self) -> grpc.ServerCertificateConfiguration:
        cert = read_public(self._cert, "--tls_cert")
        key = read_secret(Path(self._key), "the key")
        check_pair(self._cert, self._key, key)
        ca = None if self._client_ca is None else read_public(self._client_ca, "--tls_client_ca")
        return grpc.ssl_server_certificate_configuration([(key, cert)], ca)

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        marks = marks_of(self._files)
        if marks == self._seen:
            return None
        self._seen = marks
        try:
            fresh = self._read()
        except CredentialsError as error:
            logger.error("%s; the certificate read before stays", error)
            return None
        logger.info("the certificate %s was read again", self._cert)
        return fresh


def marks_of(files: Iterable[Path]) -> list[tuple[int, ...]]:
    """What differs once one of the files has changed."""
    marks: list[tuple[int, ...]] = []
    for file in files:
        try:
            status = file.stat()
        except OSError:
            marks.append(())
        else:
            marks.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return marks


def check_pair(cert_file: str, key_file: str, key: bytes) -> None:
    """See that key and certificate belong together: gRPC says so only at each handshake, to nobody.

    Raises:
        CredentialsError: they do not.
    """
    import ssl

    if b"PRIVATE KEY-----" not in key:
        raise CredentialsError(f"the key {key_file} holds no private key in PEM form")
    if b"ENCRYPTED" in key:
        raise CredentialsError(f"the key {key_file} is encrypted: give one without a passphrase, mode 0600")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_file, key_file)
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or error.strerror or "unreadable"
        raise CredentialsError(
            f"{cert_file} and {key_file} cannot be used together ({reason}): give the certificate "
            "(with its chain) and the key that belongs to it"
        ) from None


__all__ = ["Certificates", "check_pair", "marks_of"]
