"""The gRPC server around a store: made, started, drained, stopped."""

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from qlog.v1 import collector_pb2
from qlog.v1.addresses import SERVER_KEEPALIVE, bracketed, listen_trouble

from collector import limits
from collector.errors import ListenError
from collector.rpc import Gate, Guard
from collector.service import register
from collector.store import Store

SERVICE_NAME = collector_pb2.DESCRIPTOR.services_by_name["CollectorService"].full_name

_OPTIONS = (
    # Else a second server could listen on the same port, and each would get a part of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", limits.MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", -1),
    *SERVER_KEEPALIVE,
)
# Ended streams need a moment to be told; what hangs longer is cut.
_GRACE_S = 5.0


class Server:
    """A store, served.

    Args:
        store: closed by `stop`.
        host: to listen on.
        port: 0 for any that is free.
        reflection: also tell clients without stubs what the calls are.
        max_streams: at a time.

    Raises:
        ListenError: the address cannot be listened on.
    """

    def __init__(
        self, store: Store, host: str, port: int, *, reflection: bool, max_streams: int = limits.MAX_STREAMS
    ) -> None:
        self.store = store
        self._gate = Gate(max_streams)
        self._health = health.HealthServicer()
        self._pool = ThreadPoolExecutor(max_streams + limits.UNARY_THREADS, thread_name_prefix="collector")
        self._server = grpc.server(self._pool, interceptors=[Guard(self._gate)], options=_OPTIONS)
        register(store, self._gate, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if reflection:
            _add_reflection(self._server)
        shown = bracketed(host)
        try:
            self.port = self._server.add_insecure_port(f"{shown}:{port}")
        except RuntimeError:
            self.port = 0
        if self.port == 0:
            self._pool.shutdown(wait=False)
            reason = listen_trouble(host, port)
            raise ListenError(f"cannot listen on {shown}:{port}: {reason}; choose another with --host and --port")
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
        self._gate.drain()
        self._server.stop(_GRACE_S).wait()
        self._pool.shutdown(wait=False)
        self.store.close()


def _add_reflection(server: grpc.Server) -> None:
    from grpc_reflection.v1alpha import reflection

    names = (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)


__all__ = ["SERVICE_NAME", "Server"]
