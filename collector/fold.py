"""The experiment that a sequence of events makes: a fold over them.

Later events override earlier ones field by field; statistics, tasks and data sets accumulate by name, in the order in
which each name came first.
"""

from collections.abc import Iterable

from google.protobuf.message import DecodeError
from qlog.v1 import collector_pb2
from qlog.v1 import common_pb2 as pb

from collector.ledger import Codec
from collector.records import SCHEMA_VERSION, Record
from collector.wire import record_from_experiment, upsert_fields

# Counted under `dropped`: events of a kind that this version does not know, and events whose bytes on disk are damaged.
UNKNOWN_EVENTS, DAMAGED_EVENTS = "unknown", "damaged"


class Fold:
    """The state of the fold; `add` as the events come, `experiment` at any time.

    Args:
        experiment_id: of the experiment.
        keep_stats: for the FULL view; without, statistics are only counted.
    """

    def __init__(self, experiment_id: str, *, keep_stats: bool) -> None:
        self._experiment = pb.Experiment(
            experiment_id=experiment_id, status=pb.EXPERIMENT_STATUS_RUNNING, schema_version=SCHEMA_VERSION
        )
        for part in (self._experiment.config, self._experiment.reorder_summary, self._experiment.results):
            part.SetInParent()
        self._keep_stats = keep_stats
        self._stats: dict[str, pb.LayerStats | None] = {}
        self._dropped: dict[str, int] = {}

    def add_payload(self, payload: bytes, count: int) -> None:
        """Add a stored batch of `count` events."""
        try:
            self.add(events_from_payload(payload))
        except DecodeError:
            self._drop(DAMAGED_EVENTS, count)

    def add(self, events: Iterable[pb.Event]) -> None:
        """Add the next events."""
        for event in events:
            self._add(event)

    def experiment(self) -> pb.Experiment:
        """As far as it has come."""
        out = pb.Experiment()
        out.CopyFrom(self._experiment)
        out.layer_stats.extend(stats for stats in self._stats.values() if stats is not None)
        out.layer_stats_count = len(self._stats)
        out.dropped.extend(pb.DroppedEvents(kind=kind, count=count) for kind, count in self._dropped.items())
        return out

    def _drop(self, kind: str, count: int) -> None:
        self._dropped[kind] = self._dropped.get(kind, 0) + count

    def _add(self, event: pb.Event) -> None:
        kind = event.WhichOneof("event")
        if kind == "layer_stats":
            self._stats[event.layer_stats.name] = event.layer_stats if self._keep_stats else None
        elif kind == "progress":
            self._experiment.progress.CopyFrom(event.progress)
        elif kind == "begin":
            self._begin(event.begin)
        elif kind == "facts":
            for name in ("model", "calibration", "model_size_bytes", "artifact", "environment"):
                upsert_fields(getattr(self._experiment, name), getattr(event.facts, name))
        elif kind == "evaluation_result":
            merge_results(self._experiment.results, event.evaluation_result.results)
        elif kind == "reorder_summary":
            self._experiment.reorder_summary.CopyFrom(event.reorder_summary)
        elif kind == "finish":
            self._finish(event.finish)
        elif kind is None:
            self._drop(UNKNOWN_EVENTS, 1)

    def _begin(self, begin: pb.Begin) -> None:
        self._experiment.timestamp = begin.timestamp
        self._experiment.command = begin.command
        if begin.HasField("start_time"):
            self._experiment.start_time.CopyFrom(begin.start_time)
        self._experiment.config.CopyFrom(begin.config)
        upsert_fields(self._experiment.environment, begin.environment)

    def _finish(self, finish: pb.Finish) -> None:
        self._experiment.status = finish.status
        self._experiment.error = finish.error
        self._experiment.duration_s = finish.duration_s
        phases: dict[str, float] = {}
        for phase in finish.phases:
            before = phases.get(phase.phase)
            phases[phase.phase] = phase.duration_s if before is None else before + phase.duration_s
        self._experiment.phases.extend(pb.PhaseDuration(phase=name, duration_s=s) for name, s in phases.items())
        if finish.HasField("reorder_summary"):
            self._experiment.reorder_summary.CopyFrom(finish.reorder_summary)
        for dropped in finish.dropped:
            self._drop(dropped.kind, dropped.count)
        self._experiment.ClearField("progress")


def merge_results(target: pb.Results, source: pb.Results) -> None:
    """Merge results known so far into those before: field by field; tasks, data sets and further keys by name."""
    for name in ("accuracy", "perplexity"):
        if source.HasField(name):
            setattr(target, name, getattr(source, name))
    tasks = {task.task: place for place, task in enumerate(target.tasks)}
    for task in source.tasks:
        if task.task in tasks:
            target.tasks[tasks[task.task]].CopyFrom(task)
        else:
            tasks[task.task] = len(target.tasks)
            target.tasks.add().CopyFrom(task)
    ppl = {item.data_set: item for item in target.ppl}
    for item in source.ppl:
        if item.data_set in ppl:
            ppl[item.data_set].perplexity = item.perplexity
        else:
            ppl[item.data_set] = target.ppl.add(data_set=item.data_set, perplexity=item.perplexity)
    if source.HasField("fp16"):
        target.fp16.SetInParent()
        merge_results(target.fp16, source.fp16)
    upsert_fields(target.other, source.other)


def events_from_payload(payload: bytes) -> list[pb.Event]:
    """The events of a stored batch.

    Raises:
        DecodeError: the bytes are damaged.
    """
    return list(collector_pb2.AppendExperimentRequest.FromString(payload).events)


def payload_from_events(events: Iterable[pb.Event]) -> bytes:
    """A batch as it is stored: the bytes of a request with nothing but events."""
    return collector_pb2.AppendExperimentRequest(events=events).SerializeToString()


def without_first(payload: bytes, count: int) -> bytes:
    """The payload without its first `count` events."""
    return payload_from_events(events_from_payload(payload)[count:])


def fold_record(experiment_id: str, batches: Iterable[tuple[bytes, int]]) -> Record:
    """The record of an experiment that ended.

    Args:
        experiment_id: of the experiment.
        batches: (payload, events in it), in order.
    """
    fold = Fold(experiment_id, keep_stats=True)
    events = 0
    for payload, count in batches:
        fold.add_payload(payload, count)
        events += count
    experiment = fold.experiment()
    if experiment.status == pb.EXPERIMENT_STATUS_RUNNING:
        # Its finish was in a damaged batch: what is left is all there will be.
        experiment.status = pb.EXPERIMENT_STATUS_LOST
    return record_from_experiment(experiment, events=events)


CODEC = Codec(fold_record, without_first)

__all__ = [
    "CODEC",
    "DAMAGED_EVENTS",
    "UNKNOWN_EVENTS",
    "Fold",
    "events_from_payload",
    "fold_record",
    "merge_results",
    "payload_from_events",
    "without_first",
]
