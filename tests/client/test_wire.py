import math
from typing import Any

from google.protobuf import any_pb2
from hypothesis import given
from hypothesis import strategies as st
from qlog.v1 import collector_pb2, quantizer_pb2
from qlog.v1 import common_pb2 as pb

from client import compare_wire, event_wire, job_wire, record_wire, wire
from client.values import short_id_length
from tests.client import builders
from tests.client.builders import IDS

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_values_survive_the_wire(value: Any) -> None:
    """A JSON value comes back as it was, whole numbers whole and fractions fractions."""
    back = record_wire.json_value(builders.value(value))
    assert repr(back) == repr(value)


def test_a_record_has_its_keys_in_their_order() -> None:
    """The fixed keys come first and in the order that scripts know; keys of no field come last."""
    message = builders.experiment(7, other=builders.fields({"zebra": 1, "ant": 2}))
    record = wire.experiment_from(message, full=True).record
    assert list(record)[:6] == [
        *("timestamp", "command", "config", "activation_stats", "reorder_summary", "results"),
    ]
    assert list(record)[-2:] == ["zebra", "ant"]
    assert list(record["config"])[:4] == ["model", "w_bits", "a_bits", "percentile_alpha"]
    assert record["config"]["percentile_alpha"] is None
    assert list(record["activation_stats"]["layer_0.x_proj:input"])[:5] == [
        *("before_percentile", "after_percentile", "percentile_alpha", "clipped_ratio", "range_reduction"),
    ]


def test_the_basic_view_says_nothing_of_statistics() -> None:
    """Without the statistics asked for the key is not there: it would say that there are none."""
    message = builders.experiment(0, layer_stats=[])
    assert "activation_stats" not in wire.experiment_from(message).record
    assert wire.experiment_from(message, full=True).record["activation_stats"] == {}


def test_a_line_of_the_earlier_logger_has_its_own_keys_alone() -> None:
    """Keys that the line did not have are not made up."""
    record = wire.experiment_from(builders.legacy(1), full=True).record
    assert set(record) == {"timestamp", "command", "config", "activation_stats", "reorder_summary", "results"}


def test_what_a_tensor_has_of_the_users_own_stays_beside_the_fixed_keys() -> None:
    """Statistics that no field has, reorder effects and objects of half-known keys all stand in the tensor's record."""
    effect = pb.ReorderEffect(
        before_reorder=builders.interval(-4, 4), after_reorder=builders.interval(-3, 3), range_reduction_pct=25.0
    )
    other = builders.fields({"kurtosis": 3.5, "before_reorder": {"note": "x"}})
    record = record_wire.tensor_record(builders.tensor(reorder=effect, other=other))
    assert record["kurtosis"] == 3.5
    assert record["range_reduction_pct"] == 25.0
    assert record["before_reorder"] == {"min": -4.0, "max": 4.0, "range": 8.0, "note": "x"}


def test_metrics_have_their_standard_error_beside_them() -> None:
    """The error of "acc" is "acc_stderr"; a filter's name stays at the end."""
    task = pb.TaskResult(
        task="t",
        metrics=[
            pb.Metric(name="acc", value=0.5, stderr=0.1),
            pb.Metric(name="exact_match,strict", value=0.25, stderr=0.2),
            pb.Metric(name="perplexity", value=math.inf),
        ],
        n=10,
    )
    record = record_wire.results_record(pb.Results(tasks=[task]))["tasks"]["t"]
    assert list(record) == [
        *("acc", "acc_stderr", "exact_match,strict", "exact_match_stderr,strict", "perplexity"),
        *("n", "num_fewshot", "limit", "version"),
    ]


def test_a_status_of_a_later_version_is_shown_as_its_number() -> None:
    """An unknown status is not taken for a known one."""
    assert wire.experiment_from(builders.experiment(0, status=99)).status == "99"
    assert wire.experiment_from(builders.corrupt(2)).status == "CORRUPT"
    assert wire.experiment_from(builders.legacy(1)).status == ""


def test_events_keep_their_positions() -> None:
    """A heartbeat takes a position and is not told."""
    message = collector_pb2.WatchExperimentsResponse(experiment_id=IDS[0], offset=5, events=builders.run_events())
    batch = event_wire.batch_from(message)
    assert [(event.offset, event.kind) for event in batch.events] == [
        (5, "begin"),
        (6, "progress"),
        (8, "progress"),
        (9, "layer_stats"),
        (10, "evaluation_result"),
        (11, "finish"),
    ]


def test_every_kind_of_event_has_a_record() -> None:
    """Each message of the oneof but the heartbeat is told with its kind."""
    kinds = [field.name for field in pb.Event.DESCRIPTOR.oneofs_by_name["event"].fields]
    for kind in kinds:
        message = pb.Event()
        getattr(message, kind).SetInParent()
        event = event_wire.event_from(IDS[0], 0, message)
        assert (event is None) == (kind == "heartbeat")
        if event is not None:
            assert event.kind == kind
            assert event.data or kind == "facts"


def test_a_comparison_tells_null_from_absent() -> None:
    """A key that is null and one that is not there are two things; so are a tensor with and without statistics."""
    message = collector_pb2.CompareExperimentsResponse(
        experiments=[builders.experiment(0), builders.experiment(1)],
        config=[
            collector_pb2.ConfigRow(
                key="percentile_alpha",
                cells=[collector_pb2.ConfigCell(value=builders.value(None)), collector_pb2.ConfigCell()],
            )
        ],
        tensors=[
            collector_pb2.TensorRow(
                name="x", cells=[collector_pb2.TensorCell(stats=builders.tensor()), collector_pb2.TensorCell()]
            )
        ],
    )
    comparison = compare_wire.comparison_from(message)
    assert [cell.present for cell in comparison.config[0].cells] == [True, False]
    assert [cell is None for cell in comparison.tensors[0].cells] == [False, True]


def test_an_operation_without_readable_metadata_is_still_a_job() -> None:
    """A foreign operation is shown by its name."""
    from google.longrunning import operations_pb2

    operation = operations_pb2.Operation(name="operations/abc", done=True, metadata=any_pb2.Any(type_url="x/y"))
    job = job_wire.job_from_operation(operation)
    assert (job.experiment_id, job.state, job.done) == ("abc", "", True)


def test_a_jobs_specification_is_what_was_asked_for() -> None:
    """Fields that were set, by name."""
    metadata = quantizer_pb2.JobMetadata(experiment_id=IDS[0], state=quantizer_pb2.JOB_STATE_RUNNING)
    metadata.spec.model, metadata.spec.w_bits = "mamba-2m", 8
    job = job_wire.job_from("operations/x", metadata)
    assert job.spec == {"model": "mamba-2m", "w_bits": 8}
    assert (job.state, job.done, job.create_time) == ("RUNNING", False, None)


def test_short_ids_tell_experiments_apart() -> None:
    """So many characters are shown that no two shown ids look the same."""
    ids = ["0199c0de-7a30-7c11-9a52-000000000001", "0199c0de-7a30-7c12-9a52-000000000001", "0199c0df"]
    length = short_id_length(ids)
    assert len({experiment_id[:length] for experiment_id in ids}) == 3
    assert short_id_length([]) == short_id_length(["abc"]) == 13
