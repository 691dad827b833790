"""The gRPC server around a store: made, started, drained, stopped."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from qlog.v1 import collector_pb2
from qlog.v1.addresses import bracketed
from qlog.v1.secrets import CredentialsError
from qlog.v1.serving.access import Access
from qlog.v1.serving.calls import Calls
from qlog.v1.serving.listening import Listening, ListeningError, access_of, add_port, server_options
from qlog.v1.serving.observing import Observer

from collector import limits
from collector.auth import ROLES
from collector.errors import InvalidRequestError, ListenError, RequestTooLargeError, TokenFileError
from collector.gate import Gate
from collector.keep import KeepBytes
from collector.rpc import Guard
from collector.service import register
from collector.statuses import DOMAIN
from collector.store import Store

SERVICE_NAME = collector_pb2.DESCRIPTOR.services_by_name["CollectorService"].full_name

# Ended streams need a moment to be told; what hangs longer is cut.
_GRACE_S = 5.0
# What the last statuses take to their clients, once nothing else is to be done.
_LAST_WORDS_S = 0.5


class Server:
    """A store, served.

    Args:
        store: closed by `stop`.
        listening: where, and whom to let in.
        reflection: also tell clients without stubs what the calls are.
        max_streams: at a time.
        observers: told of every call.
        unary_s: what a call that is no stream may take where it has no deadline of its own.

    Attributes:
        gate: counts streams.

    Raises:
        TokenFileError: a file of tokens, keys or certificates cannot be used.
        ListenError: the address cannot be listened on.
    """

    def __init__(
        self,
        store: Store,
        listening: Listening,
        *,
        reflection: bool,
        max_streams: int = limits.MAX_STREAMS,
        observers: Sequence[Observer] = (),
        unary_s: float = limits.UNARY_S,
    ) -> None:
        self.store = store
        self.gate = Gate(max_streams)
        self._health = health.HealthServicer()
        try:
            self.access: Access = access_of(listening)
        except CredentialsError as error:
            raise TokenFileError(str(error)) from None
        calls = Calls(
            self.access,
            ROLES,
            DOMAIN,
            observers,
            malformed=lambda text: InvalidRequestError("", text),
            too_large=RequestTooLargeError,
        )
        self._pool = ThreadPoolExecutor(max_streams + limits.UNARY_THREADS, thread_name_prefix="collector")
        self._server = grpc.server(
            self._pool,
            interceptors=[calls, Guard(self.gate, unary_s), KeepBytes()],
            options=server_options(),
            # What finds no thread waits; this much may.
            maximum_concurrent_rpcs=max_streams + limits.MAX_WAITING_CALLS,
        )
        register(store, self.gate, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if reflection:
            _add_reflection(self._server)
        try:
            self.port = add_port(self._server, listening)
        except ListeningError as error:
            self._pool.shutdown(wait=False)
            raise ListenError(str(error)) from None
        except CredentialsError as error:
            self._pool.shutdown(wait=False)
            raise TokenFileError(str(error)) from None
        shown = bracketed(listening.host)
        self.endpoint = f"{shown}:{self.port}"
        # Where processes on this machine reach it.
        here = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(shown, shown)  # noqa: S104 - compared, not listened on
        self.local_endpoint = f"{here}:{self.port}"
        self._stopped = threading.Lock()

    def start(self) -> None:
        """Serve."""
        for name in ("", SERVICE_NAME):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._server.start()

    def stop(self) -> None:
        """Drain and stop: streams end with UNAVAILABLE, what was submitted is stored, the store is closed. Once."""
        if not self._stopped.acquire(blocking=False):
            return
        self._health.enter_graceful_shutdown()
        self.gate.drain()
        stopped = self._server.stop(_GRACE_S)
        # Who watches the server's health never hangs up: only calls of ours are waited for.
        self.gate.wait_idle(_GRACE_S)
        if not stopped.wait(_LAST_WORDS_S):
            self._server.stop(0).wait()
        self._pool.shutdown(wait=False)
        self.store.close()


def _add_reflection(server: grpc.Server) -> None:
    from grpc_reflection.v1alpha import reflection

    names = (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)


__all__ = ["SERVICE_NAME", "Server"]
