"""Where metrics are read: HTTP at /metrics, on loopback as it is, elsewhere with the server's TLS and tokens."""

import logging
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from qlog.v1.addresses import bracketed, is_loopback, listen_trouble
from qlog.v1.serving.access import READERS, Access, Caller, OpenAccess
from qlog.v1.serving.certificates import marks_of
from qlog.v1.serving.listening import Listening, ListeningError

logger = logging.getLogger(__name__)

# A scraper that is slower than this is cut off; so many are served at a time, the others hung up on.
_TIMEOUT_S = 10.0
_MOST_SCRAPERS = 8


class MetricsServer:
    """Serves a registry's metrics, from threads of its own.

    Args:
        registry: asked at each scrape.
        host, port: to listen on; port 0: any free one.
        listening: of the server: its TLS files and tokens are taken where others than this machine reach `host`.
        access: who may read: readers.

    Raises:
        ListeningError: the address cannot be had.
    """

    def __init__(self, registry: CollectorRegistry, host: str, port: int, listening: Listening, access: Access) -> None:
        here = is_loopback(host)
        tls = None if here or not listening.tls else _Tls(listening)
        try:
            self._server = _Server(host, port, registry, OpenAccess() if here else access, tls)
        except OSError:
            trouble = listen_trouble(host, port)
            raise ListeningError(
                f"cannot listen on {bracketed(host)}:{port} for metrics: {trouble}; choose another with --metrics_port"
            ) from None
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://{bracketed(host)}:{self._server.server_address[1]}/metrics"
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)

    def start(self) -> None:
        """Serve."""
        self._thread.start()

    def stop(self) -> None:
        """Serve no more."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Else closing waits for a scraper that is slow.
    block_on_close = False

    def __init__(self, host: str, port: int, registry: CollectorRegistry, access: Access, tls: "_Tls | None") -> None:
        self.registry, self.access, self._tls = registry, access, tls
        self._free = threading.BoundedSemaphore(_MOST_SCRAPERS)
        self.address_family = socket.getaddrinfo(host or None, port, flags=socket.AI_PASSIVE)[0][0]
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(_TIMEOUT_S)
        if self._tls is None:
            super().finish_request(request, client_address)
            return
        with self._tls.context().wrap_socket(request, server_side=True) as encrypted:
            super().finish_request(encrypted, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - its signature
        # Hung up, no TLS, too slow: the scraper's trouble.
        logger.debug("a scrape of metrics from %s failed", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _TIMEOUT_S
    server_version, sys_version = "qlog", ""

    def do_GET(self) -> None:
        identity = self.server.access.identify(self._caller())
        if identity is None or not READERS & identity.roles:
            self._answer(401, b"metrics take a reader's token: Authorization: Bearer TOKEN\n", "text/plain")
        elif self.path.partition("?")[0] != "/metrics":
            self._answer(404, b"metrics are at /metrics\n", "text/plain")
        else:
            encode, kind = choose_encoder(self.headers.get("Accept", ""))
            self._answer(200, encode(self.server.registry), kind)

    def _caller(self) -> Caller:
        words = self.headers.get("Authorization", "").split(None, 1)
        token = words[1].strip() if len(words) == 2 and words[0].lower() == "bearer" else None
        subject = None
        if isinstance(self.connection, ssl.SSLSocket):
            names: Any = (self.connection.getpeercert() or {}).get("subject", ())
            subject = next((value for [(key, value)] in names if key == "commonName"), None)
        return Caller(token, subject)

    def _answer(self, code: int, body: bytes, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if code == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its signature
        logger.debug("metrics: %s", format % args)


class _Tls:
    """The server's certificate for HTTP, read again when its files have changed."""

    def __init__(self, listening: Listening) -> None:
        self._listening = listening
        self._files = [Path(file) for file in (listening.tls_cert, listening.tls_key, listening.tls_client_ca) if file]
        self._seen = marks_of(self._files)
        self._context = self._read()

    def context(self) -> ssl.SSLContext:
        """For the next connection."""
        marks = marks_of(self._files)
        if marks != self._seen:
            self._seen = marks
            try:
                self._context = self._read()
            except (OSError, ssl.SSLError) as error:
                logger.error("the certificate of metrics cannot be read again (%s): the one before stays", error)
        return self._context

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(str(self._listening.tls_cert), str(self._listening.tls_key))
        if self._listening.tls_client_ca is not None:
            context.load_verify_locations(self._listening.tls_client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


__all__ = ["MetricsServer"]
