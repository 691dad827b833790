"""From domain values to messages: nothing is lost, and nothing that the collector would refuse is made."""

import math
from typing import Any, get_args

from hypothesis import given
from hypothesis import strategies as st
from qlog.v1 import common_pb2 as pb

from quamba.reports import MetricReport, PerplexityReport, ReorderReport, TaskReport
from quantizer.events import (
    Began,
    Evaluated,
    ExperimentEvent,
    ExperimentResults,
    FactsKnown,
    Finished,
    LayerMeasured,
    Progressed,
    Reordered,
    Status,
)
from quantizer.texts import NAME_BYTES, TEXT_BYTES, name_of, text_of
from quantizer.wire import STATUSES, config_message, event_message, layer_stats_message, results_message
from quantizer.wire_values import value_message
from tests.quantizer.builders import began, finished, layer_report, measured, progressed

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=20,
)


def read(value: pb.Value) -> Any:
    """The value that a message holds."""
    match value.WhichOneof("kind"):
        case "null_value":
            return None
        case "list_value":
            return [read(item) for item in value.list_value.values]
        case "object_value":
            return {field.name: read(field.value) for field in value.object_value.fields}
        case kind:
            return getattr(value, str(kind))


@given(JSON)
def test_values_read_back_with_their_types(value: Any) -> None:
    """1 stays a whole number and 1.0 a fraction, at any depth; the order of keys stays."""
    found = read(pb.Value.FromString(value_message(value).SerializeToString()))
    assert found == value
    assert repr(found) == repr(value)


def test_what_json_has_no_word_for_becomes_text_or_fraction() -> None:
    """Nothing that a record is given breaks it."""
    assert read(value_message(2**70)) == float(2**70)
    assert read(value_message((1, 2))) == [1, 2]
    assert read(value_message(Status.FAILED)) == "Status.FAILED"
    assert math.isnan(read(value_message(math.nan)))


@given(st.text(st.characters(exclude_categories=()), max_size=2000))
def test_texts_and_names_are_valid_and_bounded(text: str) -> None:
    """Lone surrogates (a path that is no UTF-8) and long names do not make a message that is refused."""
    assert len(name_of(text).encode()) <= NAME_BYTES
    assert pb.Begin(command=text_of(text), timestamp=name_of(text)).SerializeToString() or not text


def test_of_a_long_name_the_end_is_kept() -> None:
    """Two data sets in one deep directory stay two."""
    names = [name_of("/deep" * 200 + end) for end in ("/a.txt", "/b.txt")]
    assert len(set(names)) == 2
    assert len(text_of("é" * 100_000).encode()) <= TEXT_BYTES


def test_every_kind_of_event_has_its_message() -> None:
    """The union of events is covered, each by another kind of message."""
    events: list[ExperimentEvent] = [
        began(),
        measured(),
        Reordered(ReorderReport(6, 70.5, 58.5)),
        progressed(),
        FactsKnown(model={"family": "mamba1"}),
        Evaluated(ExperimentResults(accuracy=0.5)),
        finished(),
    ]
    assert {type(event) for event in events} == set(get_args(ExperimentEvent))
    assert get_args(ExperimentEvent) == (Began, LayerMeasured, Reordered, Progressed, FactsKnown, Evaluated, Finished)
    kinds = [event_message(event).WhichOneof("event") for event in events]
    assert kinds == ["begin", "layer_stats", "reorder_summary", "progress", "facts", "evaluation_result", "finish"]


def test_every_status_has_its_name() -> None:
    """The table is total."""
    assert set(STATUSES) == set(Status)


def test_fixed_keys_of_the_configuration_are_typed_and_others_follow() -> None:
    """A percentile_alpha that was not given is absent, not 0."""
    message = config_message({"model": "m", "w_bits": 8, "percentile_alpha": None, "quantize": True, "limit": None})
    assert message.w_bits == 8
    assert not message.HasField("percentile_alpha")
    assert [field.name for field in message.other] == ["quantize", "limit"]
    assert config_message({"percentile_alpha": 1.0}).percentile_alpha == 1.0


def test_a_tensors_statistics_are_all_there() -> None:
    """Each field of the report is a field of the message; the user's own come beside them, never over them."""
    report = layer_report()
    message = layer_stats_message(report)
    assert message.before_percentile.range == report.before.range
    assert message.range_reduction == report.range_reduction
    for name in ("percentile_alpha", "count", "absmax", "scale", "bits", "observer", "median", "p99", "sqnr_db"):
        assert getattr(message, name) == getattr(report, name)
    assert [field.name for field in message.other] == ["kurtosis"]
    from dataclasses import replace

    clashing = layer_stats_message(replace(report, statistics={"mean": 3.0}))
    assert clashing.mean == report.mean
    assert clashing.other[0].name == "mean_"


def test_results_leave_out_what_is_not_known() -> None:
    """A task without a standard error has none; a perplexity that was not measured is absent."""
    task = TaskReport("t", (MetricReport("acc", 0.5), MetricReport("ppl", 9.0, 0.1)), 10, 0, None, "1.0")
    message = results_message(
        ExperimentResults(0.5, None, (task,), (PerplexityReport("gutenberg", 30.0, 5, 2048),), ExperimentResults(0.6))
    )
    assert not message.HasField("perplexity")
    assert not message.tasks[0].metrics[0].HasField("stderr")
    assert message.tasks[0].metrics[1].stderr == 0.1
    assert not message.tasks[0].HasField("limit")
    assert message.ppl[0].data_set == "gutenberg"
    assert message.fp16.accuracy == 0.6
