"""Hypothesis strategies for what an experiment can hold."""

import math

from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st
from qlog.v1 import common_pb2 as pb
from qlog.v1.records import TASK_KEYS

from collector.records import NON_FINITE, SCHEMA_VERSION
from collector.wire import CONFIG_KEYS, REORDER_KEYS
from collector.wire_results import RESULTS_KEYS
from collector.wire_stats import STATS_KEYS

doubles = st.floats(allow_nan=False) | st.just(math.nan)
texts = st.text(max_size=8).filter(lambda text: text not in NON_FINITE)
names = st.text("abcxyz_01.:\n\0é𝄞", min_size=1, max_size=6)
int32s = st.integers(-(2**31), 2**31 - 1)
int64s = st.integers(-(2**63), 2**63 - 1)


def maybe(strategy):
    return st.none() | strategy


def fields(values, taken=frozenset()):
    """Named values with names of their own."""
    free = names.filter(lambda name: name not in taken and not name.endswith("_stderr"))
    return st.dictionaries(free, values, max_size=3).map(
        lambda table: [pb.Field(name=name, value=value) for name, value in table.items()]
    )


scalars = st.one_of(
    st.just(pb.Value(null_value=pb.NULL_KIND_UNSPECIFIED)),
    st.booleans().map(lambda v: pb.Value(bool_value=v)),
    int64s.map(lambda v: pb.Value(int_value=v)),
    doubles.map(lambda v: pb.Value(double_value=v)),
    texts.map(lambda v: pb.Value(string_value=v)),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: pb.Value(list_value=pb.ListValue(values=items))),
        fields(inner).map(lambda items: pb.Value(object_value=pb.FieldList(fields=items))),
    ),
    max_leaves=5,
)
# Under names that a task uses for metrics, a fraction is one.
no_fractions = values.filter(lambda value: value.WhichOneof("kind") != "double_value")

ranges = st.builds(pb.ValueRange, min=doubles, max=doubles, range=doubles, span=maybe(doubles))
reorders = st.builds(
    pb.ReorderEffect,
    before_reorder=ranges,
    after_reorder=ranges,
    range_reduction_pct=maybe(doubles),
    range_reduction_grouping_only_pct=maybe(doubles),
    n_groups=maybe(int32s),
    definition=maybe(texts),
)
layer_stats = st.builds(
    pb.LayerStats,
    name=names,
    before_percentile=maybe(ranges),
    after_percentile=maybe(ranges),
    percentile_alpha=maybe(doubles),
    clipped_ratio=maybe(doubles),
    range_reduction=maybe(doubles),
    measured_clipped_ratio=maybe(doubles),
    count=maybe(int64s),
    scale=maybe(doubles),
    bits=maybe(int32s),
    observer=maybe(texts),
    sqnr_db=maybe(doubles),
    saturated_ratio=maybe(doubles),
    reorder=maybe(reorders),
    other=fields(values, STATS_KEYS),
)
reorder_summaries = st.builds(
    pb.ReorderSummary,
    enabled=st.booleans(),
    avg_range_reduction=maybe(doubles),
    total_layers=int32s,
    avg_range_reduction_grouping_only=maybe(doubles),
    other=fields(values, REORDER_KEYS),
)
metrics = st.builds(
    pb.Metric,
    name=names.filter(lambda name: name not in TASK_KEYS and not name.partition(",")[0].endswith("_stderr")),
    value=doubles,
    stderr=maybe(doubles),
)


def distinct(strategy, key, max_size=3):
    return st.lists(strategy, max_size=max_size, unique_by=key)


# Names that no metric has.
task_others = fields(no_fractions).map(lambda items: [pb.Field(name=f"+{f.name}", value=f.value) for f in items])
task_results = st.builds(
    pb.TaskResult,
    task=names,
    metrics=distinct(metrics, lambda metric: metric.name),
    n=maybe(int64s),
    num_fewshot=maybe(int32s),
    limit=maybe(doubles),
    version=maybe(texts),
    other=task_others,
)
perplexities = st.builds(pb.DatasetPerplexity, data_set=names, perplexity=doubles)


_parts = {
    "accuracy": maybe(doubles),
    "perplexity": maybe(doubles),
    "tasks": distinct(task_results, lambda task: task.task, 2),
    "ppl": distinct(perplexities, lambda item: item.data_set, 2),
    "other": fields(values, RESULTS_KEYS),
}
baselines = st.builds(pb.Results, **_parts)
results = st.builds(pb.Results, **_parts, fp16=maybe(baselines))


configs = st.builds(
    pb.ExperimentConfig,
    model=maybe(texts),
    w_bits=maybe(int32s),
    percentile_alpha=maybe(doubles),
    group_heads=maybe(st.booleans()),
    calib_seqlen=maybe(int32s),
    other=fields(values, CONFIG_KEYS),
)
times = st.builds(Timestamp, seconds=st.integers(-62135596800, 253402300799), nanos=st.integers(0, 999_999_999))
final_statuses = st.sampled_from(
    [
        pb.EXPERIMENT_STATUS_COMPLETED,
        pb.EXPERIMENT_STATUS_FAILED,
        pb.EXPERIMENT_STATUS_CANCELLED,
        pb.EXPERIMENT_STATUS_LOST,
    ]
)
phases = distinct(st.builds(pb.PhaseDuration, phase=names, duration_s=doubles), lambda item: item.phase)
dropped = distinct(st.builds(pb.DroppedEvents, kind=names, count=int64s), lambda item: item.kind)
free = fields(values)


def _with_count(experiment: pb.Experiment) -> pb.Experiment:
    experiment.layer_stats_count = len(experiment.layer_stats)
    return experiment


# Experiments that ended, as the collector has them.
experiments = st.builds(
    pb.Experiment,
    experiment_id=st.uuids().map(str),
    timestamp=texts,
    start_time=maybe(times),
    command=texts,
    config=configs,
    layer_stats=distinct(layer_stats, lambda item: item.name),
    reorder_summary=reorder_summaries,
    results=results,
    status=final_statuses,
    error=texts,
    duration_s=doubles,
    phases=phases,
    environment=free,
    model=free,
    calibration=free,
    model_size_bytes=free,
    artifact=free,
    dropped=dropped,
    schema_version=st.just(SCHEMA_VERSION),
).map(_with_count)


def events_of(experiment: pb.Experiment) -> list[pb.Event]:
    """The events by which a sender tells an experiment."""
    begin = pb.Begin(
        timestamp=experiment.timestamp,
        start_time=experiment.start_time if experiment.HasField("start_time") else None,
        command=experiment.command,
        config=experiment.config,
        environment=experiment.environment,
    )
    facts = pb.Facts(
        model=experiment.model,
        calibration=experiment.calibration,
        model_size_bytes=experiment.model_size_bytes,
        artifact=experiment.artifact,
    )
    finish = pb.Finish(
        status=experiment.status,
        error=experiment.error,
        duration_s=experiment.duration_s,
        phases=experiment.phases,
        reorder_summary=experiment.reorder_summary,
        dropped=experiment.dropped,
    )
    return [
        pb.Event(begin=begin),
        pb.Event(facts=facts),
        *(pb.Event(layer_stats=stats) for stats in experiment.layer_stats),
        pb.Event(evaluation_result=pb.EvaluationResult(results=experiment.results)),
        pb.Event(finish=finish),
    ]
