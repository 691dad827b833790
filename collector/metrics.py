"""Metrics of a store, for Prometheus: what it tells while it works, and what it is found to be at each scrape."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from qlog.v1 import common_pb2 as pb

from collector.gate import Gate
from collector.names import META_NAME
from collector.observer import StoreObserver
from collector.store import INFLIGHT_NAME, LOG_NAME, Store

_SYNCS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
_GROUPS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_EVENTS = (1, 4, 16, 64, 256, 1024, 4096, 16384)
_FILES = (LOG_NAME, META_NAME, INFLIGHT_NAME)
# Kinds are what a sender wrote: others than these are counted together, or it could make any number of series.
_KINDS = frozenset(field.name for field in pb.Event.DESCRIPTOR.oneofs_by_name["event"].fields)


class StoreMetrics:
    """The metrics; `observer` is to be given to the store when it is opened, `watch` to be called then.

    Args:
        registry: of the metrics.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._syncs = Histogram(
            "qlog_store_sync_seconds",
            "Syncs of the disk; of the database of running experiments, commits.",
            ["file"],
            buckets=_SYNCS_S,
            registry=registry,
        )
        self._aside = Counter(
            "qlog_store_set_aside",
            "Torn ends of files, and damaged databases, kept under another name.",
            ["file"],
            registry=registry,
        )
        self._batches = Histogram(
            "qlog_store_commit_batches", "Batches that went to disk together.", buckets=_GROUPS, registry=registry
        )
        self._events = Histogram(
            "qlog_store_commit_events", "Events that went to disk together.", buckets=_EVENTS, registry=registry
        )
        self._lost = Counter("qlog_store_lost_experiments", "Experiments recorded as LOST.", registry=registry)
        self._dropped = Counter(
            "qlog_store_dropped_events",
            "Events that senders gave up, as the records say that came since the start.",
            ["kind"],
            registry=registry,
        )
        for file in _FILES:
            self._syncs.labels(file)
            self._aside.labels(file)
        self.observer = StoreObserver(
            synced=lambda file, seconds: self._syncs.labels(file).observe(seconds),
            set_aside=lambda file, _size: self._aside.labels(file).inc(),
            committed=self._committed,
            lost=self._lost.inc,
            dropped=lambda kind, count: self._dropped.labels(kind if kind in _KINDS else "other").inc(max(0, count)),
        )

    def watch(self, store: Store, gate: Gate) -> None:
        """Ask a store at each scrape what it is."""
        self._registry.register(_Found(store, gate))

    def _committed(self, batches: int, events: int) -> None:
        self._batches.observe(batches)
        self._events.observe(events)


class _Found:
    """What is read off a store and its server."""

    def __init__(self, store: Store, gate: Gate) -> None:
        self._store = store
        self._gate = gate

    def describe(self) -> list[Metric]:
        """Nothing beforehand: the store is asked when somebody wants to know."""
        return []

    def collect(self) -> Iterator[Metric]:
        """As of now."""
        store, index = self._store, self._store.index()
        batches, size = store.queue()
        streams, most = self._gate.streams()
        corrupt = index.corrupt_count()
        yield self._sizes()
        for name, text, value in (
            ("qlog_store_experiments", "Lines that can be read.", index.count() - corrupt),
            ("qlog_store_corrupt_lines", "Lines that cannot.", corrupt),
            ("qlog_store_running_experiments", "Experiments without a line.", len(store.running())),
            ("qlog_store_queue_batches", "Batches that wait for the disk.", batches),
            ("qlog_store_queue_bytes", "Their bytes.", size),
            ("qlog_streams", "Streams: appenders, watchers, exports.", streams),
            ("qlog_streams_limit", "As many there may be.", most),
        ):
            yield GaugeMetricFamily(name, text, value)

    def _sizes(self) -> Metric:
        family = GaugeMetricFamily("qlog_store_size_bytes", "Of a file of the store.", labels=["file"])
        for path in sorted(self._store.path.parent.glob("percentile_experiments.*")):
            try:
                size = path.stat().st_size
            except OSError:  # Gone in the meantime.
                continue
            if not path.name.endswith(".lock") and ".torn-" not in path.name and ".corrupt-" not in path.name:
                family.add_metric([path.name], size)
        return family


__all__ = ["StoreMetrics"]
