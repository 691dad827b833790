"""read(append(r)) = r: what a sender tells is what a reader gets, through events, JSON line and message."""

from pathlib import Path

import orjson
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from qlog.v1 import collector_pb2 as wire

from collector.fold import fold_record, payload_from_events
from collector.lines import decode_line, encode_line
from collector.received import batch_of, received
from collector.views import Views
from collector.wire import experiment_from_record, record_from_experiment
from tests.collector.builders import batch, opened, submit
from tests.property.strategies import events_of, experiments

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
known_keys = st.sampled_from(
    [
        "timestamp",
        "command",
        "config",
        "activation_stats",
        "reorder_summary",
        "results",
        "status",
        "error",
        "duration_s",
        "phases",
        "start_time",
        "environment",
        "artifact",
        "dropped",
        "tasks",
        "ppl",
        "fp16",
        "min",
        "max",
        "range",
        "before_percentile",
        "percentile_alpha",
        "acc",
        "acc_stderr",
        "n",
        "before_reorder",
        "span",
    ]
)
# Objects that have the log's words in all the wrong places.
odd_records = st.dictionaries(
    known_keys | st.text(max_size=3),
    st.recursive(json_values, lambda inner: st.dictionaries(known_keys, inner, max_size=4), max_leaves=12),
    max_size=5,
)


def same(left, right) -> bool:
    """Equal messages; NaN equals NaN."""
    return left.SerializeToString(deterministic=True) == right.SerializeToString(deterministic=True)


@settings(max_examples=60, deadline=None)
@given(experiments)
def test_a_message_survives_its_line(experiment):
    """Message -> record -> line -> record -> message loses nothing."""
    record = record_from_experiment(experiment)
    line = decode_line(encode_line(record))
    assert line.verified
    assert line.record == record
    assert same(experiment_from_record(line.record), experiment)


@settings(max_examples=60, deadline=None)
@given(experiments)
def test_the_record_is_the_same_written_again(experiment):
    """Record -> message -> record keeps every key, its order, and whether a number is whole."""
    line = encode_line(record_from_experiment(experiment))
    again = encode_line(record_from_experiment(experiment_from_record(decode_line(line).record)))
    assert again == line


@settings(max_examples=40, deadline=None)
@given(experiments, st.integers(1, 4))
def test_events_tell_the_experiment(experiment, size):
    """Events -> record -> message is what the sender had, however they are cut into batches; and they are valid."""
    events = events_of(experiment)
    for start in range(0, len(events), size):
        sent = wire.AppendExperimentRequest(
            experiment_id=experiment.experiment_id, offset=start, events=events[start : start + size]
        )
        assert batch_of(received(sent.SerializeToString())).count == len(sent.events)
    pieces = [events[start : start + size] for start in range(0, len(events), size)]
    record = fold_record(experiment.experiment_id, [(payload_from_events(piece), len(piece)) for piece in pieces])
    assert record["events"] == len(events)
    assert same(experiment_from_record(record), experiment)


# Each example is a store on disk: not worth shrinking.
@settings(max_examples=8, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(found=st.lists(experiments, min_size=1, max_size=3, unique_by=lambda e: e.experiment_id))
def test_read_of_append_is_the_record(tmp_path_factory, found):
    """Through a real store on disk, opened anew: everything comes back, with its number."""
    log_dir: Path = tmp_path_factory.mktemp("store")
    with opened(log_dir) as store:
        for experiment in found:
            submit(store, batch(experiment.experiment_id, events_of(experiment)))
    with opened(log_dir) as store:
        views = Views(store)
        for number, experiment in enumerate(found):
            read = views.get(experiment.experiment_id, full=True)
            assert read.number == number
            read.ClearField("number")
            assert same(read, experiment)
            basic = views.get(str(number), full=False)
            assert basic.layer_stats_count == len(experiment.layer_stats)
            assert not basic.layer_stats


@settings(max_examples=150, deadline=None)
@given(odd_records)
def test_any_object_can_be_shown(record):
    """Whatever JSON object a line holds, it becomes a message that can be sent; nothing that it holds is dropped."""
    message = experiment_from_record(record)
    assert same(type(message).FromString(message.SerializeToString()), message)
    kept = orjson.dumps(record_from_experiment(message))
    for text in _texts(record):
        assert orjson.dumps(text)[1:-1] in kept


def _texts(value) -> list[str]:
    if isinstance(value, str):
        return [value]
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for child in children for text in _texts(child)]
