"""Records as messages: the fixed keys keep their place, nothing is dropped, zeros and unknowns are told apart."""

import json
import math

from qlog.v1 import common_pb2 as pb

from collector.fold import Fold, fold_record, payload_from_events
from collector.lines import decode_line
from collector.wire import experiment_from_record, record_from_experiment, status_name
from tests.collector.builders import LEGACY_LINE, begin, finish, new_id, result, stats


def folded(*events: pb.Event) -> dict:
    return fold_record(new_id(), [(payload_from_events(events), len(events))])


def test_a_line_of_the_earlier_logger_becomes_a_message():
    """Every fixed key has its field; what it does not have is absent, and its status is not known."""
    experiment = experiment_from_record(decode_line(LEGACY_LINE).record, number=3)
    assert experiment.number == 3
    assert experiment.experiment_id == ""
    assert experiment.status == pb.EXPERIMENT_STATUS_UNSPECIFIED
    assert experiment.config.model == "mamba-370m"
    assert not experiment.config.HasField("percentile_alpha")
    assert experiment.config.apply_gptq
    (tensor,) = experiment.layer_stats
    assert tensor.before_percentile == pb.ValueRange(min=-127.35, max=156.82, range=284.17)
    assert tensor.range_reduction == 0.0646
    assert experiment.results.perplexity == 9.621
    assert not experiment.reorder_summary.enabled
    assert not experiment.other


def test_the_fixed_keys_are_always_there():
    """An experiment that ended at once has all keys of the format: null where not known, its default for reordering."""
    record = folded(begin(), finish(pb.EXPERIMENT_STATUS_FAILED, error="no such model"))
    assert record["activation_stats"] == {}
    assert record["reorder_summary"] == {"enabled": False, "avg_range_reduction": None, "total_layers": 0}
    assert record["results"] == {"accuracy": None, "perplexity": None, "tasks": {}, "ppl": {}}
    assert list(record["config"]) == [
        "model",
        "w_bits",
        "a_bits",
        "percentile_alpha",
        "group_heads",
        "apply_gptq",
        "quantize_embedding",
        "quantize_lm_head",
        "calib_data_num",
        "calib_seqlen",
    ]
    assert (record["status"], record["error"], record["artifact"]) == ("FAILED", "no such model", None)


def test_a_tensor_has_its_keys_in_order():
    """The five fixed keys first, then what is known, then head reordering, then the user's own."""
    tensor = stats("layer_0.x_conv_out:input_reordered").layer_stats
    tensor.reorder.before_reorder.CopyFrom(pb.ValueRange(min=-1, max=2, range=4, span=3))
    tensor.reorder.after_reorder.CopyFrom(pb.ValueRange(min=-1, max=1, range=2, span=2))
    tensor.reorder.range_reduction_pct = 50.0
    tensor.reorder.range_reduction_grouping_only_pct = 0.0
    tensor.reorder.n_groups = 16
    tensor.reorder.definition = "mean of group ranges"
    tensor.other.add(name="kurtosis", value=pb.Value(double_value=3.0))
    record = folded(begin(), pb.Event(layer_stats=tensor), finish())
    (written,) = record["activation_stats"].values()
    assert list(written) == [
        "before_percentile",
        "after_percentile",
        "percentile_alpha",
        "clipped_ratio",
        "range_reduction",
        "count",
        "observer",
        "before_reorder",
        "after_reorder",
        "range_reduction_pct",
        "n_groups",
        "definition",
        "range_reduction_grouping_only_pct",
        "kurtosis",
    ]
    assert written["before_reorder"] == {"min": -1.0, "max": 2.0, "range": 4.0, "span": 3.0}
    assert written["range_reduction_grouping_only_pct"] == 0.0


def test_numbers_that_are_not_finite_are_strings_in_the_line_and_doubles_on_the_wire():
    """NaN and infinities survive, in typed keys and in the user's own; zeros are written."""
    tensor = pb.LayerStats(name="t", sqnr_db=math.inf, mean=0.0, percentile_alpha=math.nan)
    tensor.other.add(name="own", value=pb.Value(double_value=-math.inf))
    record = folded(begin(), pb.Event(layer_stats=tensor), finish())
    written = record["activation_stats"]["t"]
    assert (written["sqnr_db"], written["percentile_alpha"], written["own"]) == ("Infinity", "NaN", "-Infinity")
    assert written["mean"] == 0.0
    (read,) = experiment_from_record(json.loads(json.dumps(record))).layer_stats
    assert read.sqnr_db == math.inf
    assert math.isnan(read.percentile_alpha)
    assert read.other[0].value.double_value == -math.inf


def test_values_of_the_wrong_type_and_unknown_keys_are_kept():
    """What does not fit its field travels in `other`, and is written back where it was."""
    record = {
        "config": {"w_bits": "8", "percentile_alpha": "None", "seed": 7},
        "activation_stats": {"t": {"before_percentile": {"min": 0.0, "max": 1.0, "range": 1.0, "p50": 0.5}}, "u": [1]},
        "results": {"accuracy": "n/a", "tasks": {"x": {"acc": 0.5, "acc_stderr": "N/A"}, "y": 3}, "bleu": 1.5},
        "status": "PAUSED",
        "tags": ["a", {"b": None}],
    }
    again = record_from_experiment(experiment_from_record(record))
    assert again["config"] | {} == again["config"]
    for part in ("config", "results"):
        assert {key: again[part][key] for key in record[part] if key != "tasks"} == {
            key: value for key, value in record[part].items() if key != "tasks"
        }
    assert again["results"]["tasks"]["y"] == 3
    assert again["results"]["tasks"]["x"]["acc_stderr"] == "N/A"
    assert again["activation_stats"]["t"]["before_percentile"] == record["activation_stats"]["t"]["before_percentile"]
    assert again["activation_stats"]["u"] == [1]
    assert again["status"] == "PAUSED"
    assert again["tags"] == record["tags"]


def test_what_is_nested_beyond_reason_becomes_text():
    """A line of a thousand nested lists can be sent: from some depth on it is its JSON text."""
    deep: list = []
    for _ in range(200):
        deep = [deep]
    experiment = experiment_from_record({"odd": deep})
    assert pb.Experiment.FromString(experiment.SerializeToString()) == experiment
    assert "[[[[" in str(experiment)


def test_later_events_override_and_accumulate():
    """Results override field by field, tasks and tensors by name, facts by key; progress goes with the end."""
    fold = Fold(new_id(), keep_stats=True)
    first = pb.Results(perplexity=9.0, ppl=[pb.DatasetPerplexity(data_set="w", perplexity=9.0)])
    fold.add([begin(), stats("a", 1.0), stats("b"), stats("a", 5.0), result(0.5), result(0.75)])
    fold.add([pb.Event(evaluation_result=pb.EvaluationResult(results=first))])
    fold.add([pb.Event(progress=pb.Progress(phase="evaluate:cloze", done=3, total=10))])
    for sha in ("old", "new"):
        fact = pb.Field(name="digest", value=pb.Value(string_value=sha))
        fold.add([pb.Event(facts=pb.Facts(model=[fact]))])
    running = fold.experiment()
    assert running.status == pb.EXPERIMENT_STATUS_RUNNING
    assert running.progress.done == 3
    assert [(item.name, item.before_percentile.max) for item in running.layer_stats] == [("a", 5.0), ("b", 2.0)]
    assert [task.metrics[0].value for task in running.results.tasks] == [0.75]
    assert (running.results.accuracy, running.results.perplexity) == (0.75, 9.0)
    assert [field.value.string_value for field in running.model] == ["new"]
    fold.add([finish()])
    assert not fold.experiment().HasField("progress")
    assert fold.experiment().duration_s == 1.5


def test_events_of_unknown_kinds_and_damaged_batches_are_counted():
    """A newer sender's events and bytes that cannot be read are lost, and the record says how many."""
    record = fold_record(
        new_id(),
        [(payload_from_events([begin(), pb.Event(), finish()]), 3), (b"\xff\xff\xff", 5)],
    )
    assert record["dropped"] == {"unknown": 1, "damaged": 5}
    assert record["events"] == 8


def test_every_status_has_a_name():
    """The table of names is total."""
    for name, value in pb.ExperimentStatus.items():
        expected = None if value == 0 else name.removeprefix("EXPERIMENT_STATUS_")
        assert status_name(value) == expected
        assert experiment_from_record({"status": expected}).status == value
