"""Metrics of a quantizer, for Prometheus: its jobs, and the events that the collector does not have yet."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from quantizer.job import JobState
from quantizer.jobs import Jobs
from quantizer.recorder import Recorder


class QuantizerMetrics:
    """What is read off the jobs and the spool at each scrape."""

    def __init__(self, jobs: Jobs, recorder: Recorder) -> None:
        self._jobs = jobs
        self._recorder = recorder

    def describe(self) -> list[Metric]:
        """Nothing beforehand: they are asked when somebody wants to know."""
        return []

    def collect(self) -> Iterator[Metric]:
        """As of now."""
        jobs = GaugeMetricFamily("qlog_jobs", "Jobs that are kept, by where they stand.", labels=["state"])
        counts = Counter(job.state for job in self._jobs.all())
        for state in JobState:
            jobs.add_metric([state.value], counts[state])
        yield jobs
        spooled = self._recorder.spooled()
        yield GaugeMetricFamily("qlog_spool_experiments", "Experiments with events in the spool.", len(spooled))
        yield GaugeMetricFamily(
            "qlog_spool_events", "Events that the collector does not have yet.", sum(row.pending for row in spooled)
        )
        yield GaugeMetricFamily("qlog_spool_bytes", "Their bytes.", sum(row.bytes for row in spooled))


__all__ = ["QuantizerMetrics"]
