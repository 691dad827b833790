"""Metrics of calls, for Prometheus: how many, how long, how they end, how many are there now."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)

from qlog.v1.serving.access import RoleTable
from qlog.v1.serving.observing import Call

# From what SQLite answers in to what a long export takes.
_LATENCIES_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0)


def new_registry(program: str, version: str) -> CollectorRegistry:
    """A registry that knows the process and its version: nothing global, so that a process may have several."""
    # Each series' time of birth is told by the process's own, and would double what is sent.
    disable_created_metrics()  # type: ignore[no-untyped-call]  # The library has no types there.
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    Info("qlog_build", "The program that is asked.", registry=registry).info({"program": program, "version": version})
    return registry


class CallMetrics:
    """An observer that counts calls.

    Args:
        registry: of the metrics.
        roles: its keys are the methods, which are there from the start, with 0.
    """

    def __init__(self, registry: CollectorRegistry, roles: RoleTable) -> None:
        self._started = Counter("qlog_rpc_started", "Calls that have come.", ["method"], registry=registry)
        self._handled = Counter(
            "qlog_rpc_handled", "Calls that have ended, with their status.", ["method", "code"], registry=registry
        )
        self._now = Gauge("qlog_rpc_in_flight", "Calls that are there now.", ["method"], registry=registry)
        self._latency = Histogram(
            "qlog_rpc_duration_seconds",
            "From a call's first byte to its last.",
            ["method"],
            buckets=_LATENCIES_S,
            registry=registry,
        )
        self._events = Counter("qlog_rpc_events_received", "Events of experiments in requests.", registry=registry)
        for method in roles:
            for metric in (self._started, self._now, self._latency):
                metric.labels(_short(method))

    def began(self, method: str) -> None:
        """One more."""
        name = _short(method)
        self._started.labels(name).inc()
        self._now.labels(name).inc()

    def ended(self, call: Call) -> None:
        """One less."""
        name = _short(call.method)
        self._now.labels(name).dec()
        self._handled.labels(name, call.code.name).inc()
        self._latency.labels(name).observe(call.duration_s)
        if call.events:
            self._events.inc(call.events)


def _short(method: str) -> str:
    """As "Health.Check": methods of different services may have the same name."""
    service, _, name = method.strip("/").rpartition("/")
    return f"{service.rpartition('.')[2]}.{name}"


__all__ = ["CallMetrics", "new_registry"]
