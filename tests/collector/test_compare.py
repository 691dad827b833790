"""Experiments side by side: rows are aligned, differences are to the first, in the metric's own unit."""

import pytest

from collector.compare import Unit, compare, natural_key, same
from collector.wire_compare import UNITS


def record(**parts):
    return {"config": {}, "activation_stats": {}, "results": {}, **parts}


def config_row(records, key):
    (row,) = [row for row in compare(records).config if row.key == key]
    return row


def metric_row(records, name):
    (row,) = [row for row in compare(records).results if row.name == name]
    return row


def test_configuration_rows_mark_what_differs():
    """Equal values do not differ, 8 and 8.0 are equal, absent and null are; true and 1 are not."""
    left = record(config={"w_bits": 8, "alpha": None, "heads": True, "list": [1, {"a": 2}], "same": {"x": 1}})
    right = record(config={"w_bits": 8.0, "heads": 1, "list": [1, {"a": 2.0}], "same": {"x": 1}, "new": "y"})
    rows = {row.key: row.differs for row in compare([left, right]).config}
    assert rows == {"w_bits": False, "alpha": False, "heads": True, "list": False, "same.x": False, "new": True}
    assert config_row([left, right], "new").values == ((), ("y",))
    assert config_row([left, right], "alpha").values == ((None,), ())


def test_environment_model_and_calibration_follow_the_configuration():
    """Their keys carry their part's name, nested objects are flattened, in this order."""
    parts = {
        "calibration": {"seed": 1},
        "model": {"family": "mamba2"},
        "environment": {"torch": "2.13", "git": {"sha": "a", "dirty": False}},
        "reorder_summary": {"enabled": True},
        "config": {"w_bits": 4},
    }
    keys = [row.key for row in compare([record(**parts), record(config={"z": 1})]).config]
    assert keys == [
        "w_bits",
        "z",
        "reorder_summary.enabled",
        "environment.torch",
        "environment.git.sha",
        "environment.git.dirty",
        "model.family",
        "calibration.seed",
    ]


def test_fractions_differ_in_points_with_their_combined_standard_error():
    """difference = 100 (b - a), its standard error 100 sqrt(sa^2 + sb^2), and whether it exceeds it."""
    records = [
        record(results={"tasks": {"t": {"acc": acc, "acc_stderr": stderr, "n": 100}}})
        for acc, stderr in ((0.50, 0.03), (0.54, 0.04), (0.60, 0.04))
    ]
    row = metric_row(records, "tasks.t.acc")
    assert row.unit is Unit.FRACTION
    assert row.differs
    first, second, third = row.cells
    assert (first.value, first.stderr, first.difference) == (0.50, 0.03, None)
    assert second.difference == pytest.approx(4.0)
    assert second.difference_stderr == pytest.approx(5.0)
    assert second.exceeds_stderr is False
    assert third.difference == pytest.approx(10.0)
    assert third.exceeds_stderr is True
    assert "tasks.t.n" not in [row.name for row in compare(records).results]


def test_the_headline_accuracy_has_the_standard_error_of_the_metric_it_repeats():
    """results.accuracy itself has none: it is that of the task it was taken from."""
    results = {
        "accuracy": 0.5,
        "perplexity": 9.5,
        "tasks": {"t": {"perplexity": 9.5, "perplexity_stderr": 0.2, "acc": 0.5, "acc_stderr": 0.01}},
    }
    records = [record(results=results), record(results=results)]
    assert metric_row(records, "accuracy").cells[1].difference_stderr == pytest.approx(2**0.5)
    assert metric_row(records, "perplexity").cells[0].stderr == 0.2
    assert metric_row(records, "perplexity").unit is Unit.PLAIN


def test_plain_numbers_differ_plainly():
    """Perplexities, sizes, durations, reorder averages: in their own unit, without a standard error unless known."""
    left = record(
        results={"perplexity": 9.5, "ppl": {"wikitext2": 12.0}, "fp16": {"perplexity": 9.0}},
        reorder_summary={"enabled": True, "avg_range_reduction": 10.0, "total_layers": 4},
        duration_s=5.0,
        model_size_bytes={"after": 10},
    )
    right = record(
        results={"perplexity": 9.0, "ppl": {"wikitext2": 15.0}},
        reorder_summary={"enabled": True, "avg_range_reduction": 12.5, "total_layers": 4},
        duration_s=7.0,
        model_size_bytes={"after": 8},
    )
    rows = compare([left, right]).results
    assert {row.name: row.cells[1].difference for row in rows} == {
        "perplexity": -0.5,
        "ppl.wikitext2": 3.0,
        "fp16.perplexity": None,
        "reorder_summary.avg_range_reduction": 2.5,
        "reorder_summary.total_layers": 0.0,
        "model_size_bytes.after": -2.0,
        "duration_s": 2.0,
    }
    assert not any(row.unit is Unit.FRACTION for row in rows)
    assert [row.name for row in rows if not row.differs] == ["reorder_summary.total_layers"]
    assert all(cell.exceeds_stderr is None for row in rows for cell in row.cells)


def test_sizes_are_bytes():
    """What stands in model_size_bytes is counted in them, and every unit has its name on the wire."""
    records = [record(model_size_bytes={"before": 1, "after": size}) for size in (1, 2)]
    assert {row.name: row.unit for row in compare(records).results} == {
        "model_size_bytes.before": Unit.BYTES,
        "model_size_bytes.after": Unit.BYTES,
    }
    assert set(UNITS) == set(Unit)
    assert len(set(UNITS.values())) == len(Unit)


def test_metrics_in_per_cent_are_no_fractions():
    """A task that reports f1 as 81.5 is compared in its own unit."""
    records = [record(results={"tasks": {"squad": {"f1": value}}}) for value in (81.5, 80.0)]
    row = metric_row(records, "tasks.squad.f1")
    assert row.unit is Unit.PLAIN
    assert row.cells[1].difference == -1.5


def test_filters_of_lm_eval_keep_their_standard_errors():
    """ "exact_match,strict" has its standard error under "exact_match_stderr,strict"."""
    task = {"exact_match,strict": 0.25, "exact_match_stderr,strict": 0.01, "exact_match,flexible": 0.5}
    records = [record(results={"tasks": {"gsm": task}})] * 2
    row = metric_row(records, "tasks.gsm.exact_match,strict")
    assert row.unit is Unit.FRACTION
    assert row.cells[0].stderr == 0.01
    assert len(compare(records).results) == 2


@pytest.mark.parametrize("odd", ["NaN", "Infinity"])
def test_what_is_not_finite_has_no_difference(odd):
    """NaN and infinities are shown and not subtracted; two of them do not differ."""
    records = [record(results={"perplexity": odd}), record(results={"perplexity": odd})]
    row = metric_row(records, "perplexity")
    assert row.cells[1].difference is None
    assert not row.differs
    assert metric_row([records[0], record(results={"perplexity": 3.0})], "perplexity").differs


def test_tensors_are_aligned_by_name_in_natural_order():
    """layer_2 before layer_10; a tensor that only one has is there, with an empty cell, and differs."""
    left = record(activation_stats={"layer_10.x:input": {"scale": 1.0}, "layer_2.x:input": {"scale": 1.0}})
    right = record(activation_stats={"layer_2.x:input": {"scale": 1.0}, "lm_head:input": {"scale": 2.0}})
    rows = compare([left, right]).tensors
    assert [(row.name, row.differs) for row in rows] == [
        ("layer_2.x:input", False),
        ("layer_10.x:input", True),
        ("lm_head:input", True),
    ]
    assert rows[1].stats == ({"scale": 1.0}, None)


def test_natural_order_takes_numbers_of_any_length():
    """No number is too long to be sorted."""
    names = ["a" + "9" * 5000, "a10", "a9", "a09b", "a"]
    assert sorted(names, key=natural_key) == ["a", "a9", "a09b", "a10", "a" + "9" * 5000]


def test_records_with_nothing_and_with_nonsense_are_compared():
    """A line of whatever shape does not break the comparison."""
    odd = {
        "config": 3,
        "results": {"tasks": [1], "ppl": "x", "fp16": 2, "accuracy": "high"},
        "activation_stats": {"a": 1},
    }
    comparison = compare([{}, odd])
    assert comparison.config == ()
    assert comparison.tensors == ()
    assert comparison.results == ()


def test_equality_of_json_values():
    """Objects by key whatever their order, lists in order, numbers by value, booleans only with themselves."""
    assert same({"a": 1, "b": [1, 2]}, {"b": [1.0, 2], "a": 1})
    assert not same({"a": 1}, {"a": 1, "b": None})
    assert not same([1, 2], [2, 1])
    assert not same(True, 1)
    assert same(None, None)
