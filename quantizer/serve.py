"""`quantizer serve`: the parts put together, started, and stopped again."""

import logging
import math
import queue
import signal
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from google.longrunning import operations_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from qlog.v1 import quantizer_pb2, quantizer_pb2_grpc
from qlog.v1.addresses import bracketed
from qlog.v1.logs import start_logging
from qlog.v1.secrets import CredentialsError
from qlog.v1.serving.access import TokenAccess
from qlog.v1.serving.audit import Audit
from qlog.v1.serving.calls import Calls
from qlog.v1.serving.listening import Listening, ListeningError, access_of, add_port, server_options
from qlog.v1.serving.observing import Observer

from quantizer.auth import ROLES
from quantizer.device_runner import CANCEL_GRACE_S, DeviceRunner, WorkerMain
from quantizer.devices import Device, find_devices, serves
from quantizer.embedded import LocalEndpoint
from quantizer.endpoints import check_host
from quantizer.errors import QuantizerError
from quantizer.events import Began, Finished, Status
from quantizer.job import Job
from quantizer.jobs import Jobs
from quantizer.recorder import Recorder
from quantizer.roots import Roots
from quantizer.service import DOMAIN, Operations, Quantizer, Streams
from quantizer.settings import Settings
from quantizer.worker import work

if TYPE_CHECKING:
    from qlog.v1.serving.traces import Tracing

logger = logging.getLogger(__name__)

STOPPED = "the quantizer was stopped"
SERVER_GRACE_S = 2.0
# Who stops a program may send the signal to it and to its process group: what comes so soon is not another one.
SAME_SIGNAL_S = 1.0
_SERVICES = (
    quantizer_pb2.DESCRIPTOR.services_by_name["QuantizerService"].full_name,
    "google.longrunning.Operations",
)
_THREADS, _MOST_CALLS = 64, 512


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What `quantizer serve` was asked for."""

    listening: Listening
    model_root: Path
    devices: str
    output_root: Path | None = None
    log_format: str = "text"
    log_level: str = "info"
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None
    otlp_endpoint: str | None = None


class QuantizerServer:
    """The running service."""

    def __init__(
        self,
        options: ServeOptions,
        settings: Settings,
        *,
        log: Callable[[str], None],
        worker_main: WorkerMain = work,
        observers: Sequence[Observer] = (),
    ) -> None:
        """Open the spool, listen, start the workers; `observers` are told of every call.

        Raises:
            QuantizerError: one of these cannot be done.
        """
        try:
            self.access = access_of(options.listening)
        except CredentialsError as error:
            raise QuantizerError(str(error)) from None
        self._tracing = _traced(options)
        self.devices: tuple[Device, ...] = find_devices(options.devices)
        self._log = log
        self._local = LocalEndpoint(settings.log_dir)
        if settings.collector is None:
            self._local.check()
        self._warned = ""
        try:
            self.recorder = Recorder(
                settings.log_dir,
                collector=settings.collector,
                open_local=lambda: self._local,
                warn=self._warn,
                credentials=settings.credentials,
            )
        except QuantizerError:
            self._local.close()
            raise
        self.jobs = Jobs(serves)
        roots = Roots.of(options.model_root, options.output_root)
        self._runners = [
            DeviceRunner(device.name, self.jobs, self.recorder, log, worker_main, roots.check)
            for device in self.devices
        ]
        self._health = health.HealthServicer()
        told = list(observers)
        self._metering = None
        if options.metrics_port is not None:
            # Imported where it is asked for.
            from qlog.v1.serving.metering import Metering

            from quantizer.metrics import QuantizerMetrics

            self._metering = Metering("quantizer", ROLES)
            self._metering.registry.register(QuantizerMetrics(self.jobs, self.recorder))
            told.append(self._metering.calls)
        if self._tracing is not None:
            told.append(self._tracing)
        self._server = grpc.server(
            futures.ThreadPoolExecutor(_THREADS, "qlog-rpc"),
            interceptors=[Calls(self.access, ROLES, DOMAIN, told)],
            options=server_options(),
            maximum_concurrent_rpcs=_MOST_CALLS,
        )
        try:
            self.port = self._listen(options, roots)
        except QuantizerError:
            self.recorder.close()
            raise
        for runner in self._runners:
            runner.start()
        self._server.start()
        for name in ("", *_SERVICES):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def _listen(self, options: ServeOptions, roots: Roots) -> int:
        streams = Streams()
        quantizer_pb2_grpc.add_QuantizerServiceServicer_to_server(
            Quantizer(self.jobs, self.devices, roots, streams), self._server
        )
        operations_pb2_grpc.add_OperationsServicer_to_server(Operations(self.jobs, streams), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        try:
            if self._metering is not None and options.metrics_port is not None:
                self._metering.serve(options.metrics_host, options.metrics_port, options.listening, self.access)
            return add_port(self._server, options.listening)
        except (ListeningError, CredentialsError) as error:
            raise QuantizerError(str(error)) from error

    @property
    def metrics_url(self) -> str:
        """Where metrics are read; empty: nowhere."""
        return "" if self._metering is None else self._metering.url

    def _warn(self, message: str) -> None:
        if message != self._warned:  # The same trouble is told once, not at each attempt.
            self._warned = message
            logger.warning(message)

    def stop(self) -> None:
        """Take no more jobs, end those that run, record that, and go."""
        self._health.enter_graceful_shutdown()
        for job in self.jobs.stop(STOPPED):
            self._record_unbegun(job)
        until = time.monotonic() + CANCEL_GRACE_S + 5.0
        for runner in self._runners:
            runner.join(max(0.1, until - time.monotonic()))
        self._server.stop(SERVER_GRACE_S).wait()
        if self._metering is not None:
            self._metering.stop()
        if self._tracing is not None:
            self._tracing.stop()
        self.recorder.close()

    def _record_unbegun(self, job: Job) -> None:
        """A job that was never begun leaves a record too: somebody waits for it."""
        recording = self.recorder.recording(job.experiment_id)
        recording.record(Began.now(job.experiment_id, job.command, job.config.record(), {}))
        recording.record(Finished(Status.CANCELLED, STOPPED, 0.0))


def _traced(options: ServeOptions) -> "Tracing | None":
    from qlog.v1.serving.traces import Tracing, TracingError, traces_are_asked_for

    if not traces_are_asked_for(options.otlp_endpoint):
        return None
    try:
        return Tracing("quantizer", options.otlp_endpoint)
    except TracingError as error:
        raise QuantizerError(str(error)) from None


def serve_until_stopped(options: ServeOptions, settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C; another one, later, does not wait for anything.

    Raises:
        QuantizerError: it cannot start.
    """
    check_host(options.listening)

    start_logging("quantizer", options.log_format, options.log_level)
    # A handler runs between any two instructions of this thread, also of a wait: an event's lock could be held then. A
    # SimpleQueue is made for that.
    stops: queue.SimpleQueue[int] = queue.SimpleQueue()
    stopping_since = math.inf

    def stop(number: int, _frame: object) -> None:
        if time.monotonic() > stopping_since + SAME_SIGNAL_S:
            raise KeyboardInterrupt
        stops.put(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server = QuantizerServer(options, settings, log=logger.info, observers=[Audit(ROLES)])
    except BaseException:
        for number, handler in before.items():
            signal.signal(number, handler)
        raise
    signal.signal(signal.SIGHUP, lambda number, _frame: stops.put(number))
    where = settings.collector or f"the local store in {settings.log_dir}"
    names = ", ".join(device.name for device in server.devices)
    print(
        f"quantizer: listening on {bracketed(options.listening.host)}:{server.port} (devices {names}; models below "
        f"{options.model_root.resolve()}; recording with {where})",
        flush=True,
    )
    if server.metrics_url:
        print(f"quantizer: metrics at {server.metrics_url}", flush=True)
    while stops.get() == signal.SIGHUP:
        if isinstance(server.access, TokenAccess):
            server.access.reload()
    stopping_since = time.monotonic()
    logger.info("stopping")
    server.stop()


__all__ = ["QuantizerServer", "ServeOptions", "check_host", "serve_until_stopped"]
