"""Traces of calls by OpenTelemetry, sent by OTLP: only where they are asked for, and the extra `otel` is installed.

A span is made when its call has ended, with the times that it had; it goes on the trace that the caller began, where
there is one (`traceparent`). Sampling, headers, certificates and the names of resources are OpenTelemetry's own
variables (OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS, ...).
"""

import os
import threading
from typing import Any, Final

import grpc

from qlog.v1.serving.observing import Call

# Which ask for traces where no option does.
_ENDPOINT_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_EXPORT_TIMEOUT_S, _FLUSH_S = 5.0, 3.0
# Of a server's spans, these statuses are errors: the others are the caller's affair.
_ERRORS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)


class TracingError(Exception):
    """Traces cannot be sent as asked; one line that says what to do."""


def traces_are_asked_for(endpoint: str | None) -> bool:
    """Whether an option or a variable names where they go."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    return bool(endpoint) or any(os.environ.get(name) for name in _ENDPOINT_VARIABLES)


class Tracing:
    """An observer that makes a span of each call.

    Args:
        program: the service's name, as qlog-PROGRAM, where OTEL_SERVICE_NAME gives no other.
        endpoint: http://HOST:PORT or https://HOST:PORT; None: what OpenTelemetry's variables say.

    Raises:
        TracingError: the packages are not installed, or the endpoint is none.
    """

    def __init__(self, program: str, endpoint: str | None) -> None:
        if endpoint is not None and not endpoint.startswith(("http://", "https://")):
            raise TracingError(f"--otlp_endpoint {endpoint}: write it as http://HOST:4317 or https://HOST:4317")
        try:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise TracingError(
                f"traces need packages that are not installed ({error.name}): run pip install '.[otel]' in the "
                "project's folder, or ask for none (--otlp_endpoint, OTEL_EXPORTER_OTLP_ENDPOINT)"
            ) from None
        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": f"qlog-{program}"}
        self._provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_TIMEOUT_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("qlog")
        self._propagator = TraceContextTextMapPropagator()

    def began(self, method: str) -> None:
        """Its span is made when it is over."""

    def ended(self, call: Call) -> None:
        """One span; health checks make none."""
        from opentelemetry.trace import SpanKind, StatusCode

        service, _, method = call.method.strip("/").rpartition("/")
        if service == "grpc.health.v1.Health":
            return
        attributes: dict[str, Any] = {
            "rpc.system": "grpc",
            "rpc.service": service,
            "rpc.method": method,
            "rpc.grpc.status_code": call.code.value[0],
            "client.address": call.peer,
            "enduser.id": call.who,
            "qlog.requests": call.requests,
            "qlog.events": call.events,
        }
        if call.subjects:
            attributes["qlog.subjects"] = call.subjects
        if call.filter:
            attributes["qlog.filter"] = call.filter
        start_ns = round(call.start_s * 1e9)
        span = self._tracer.start_span(
            f"{service}/{method}",
            context=self._propagator.extract({"traceparent": call.trace}) if call.trace else None,
            kind=SpanKind.SERVER,
            attributes=attributes,
            start_time=start_ns,
        )
        if call.code in _ERRORS:
            span.set_status(StatusCode.ERROR, call.code.name)
        span.end(end_time=start_ns + round(call.duration_s * 1e9))

    def stop(self) -> None:
        """Send what is left, within a few seconds; what nobody takes then is lost."""
        flush = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        flush.start()
        flush.join(_FLUSH_S)


__all__ = ["Tracing", "TracingError", "traces_are_asked_for"]
