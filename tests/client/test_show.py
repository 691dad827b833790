import csv
import io
import json
from collections.abc import Callable

import pytest
from qlog.v1 import common_pb2 as pb

from tests.client import builders
from tests.client.conftest import Ran
from tests.client.fakes import FakeCollector

Qlog = Callable[..., Ran]


@pytest.mark.parametrize("ref", ["4", "-1", builders.IDS[4], builders.IDS[4][:13]])
def test_a_ref_reaches_the_server_as_typed(qlog: Qlog, collector: FakeCollector, ref: str) -> None:
    """A number, a number from the end, an id and a prefix all name the experiment."""
    ran = qlog("show", ref, "--collector", collector.endpoint)
    assert ran.code == 0
    assert collector.requests[-1].ref == ref
    assert ran.out.startswith("Experiment #4\n")


def test_everything_of_the_record_is_shown(qlog: Qlog, collector: FakeCollector) -> None:
    """Every part of a record has its place, statistics and keys of the user's own too."""
    effect = pb.ReorderEffect(
        before_reorder=builders.interval(-4, 4),
        after_reorder=builders.interval(-3, 3),
        range_reduction_pct=25.0,
        range_reduction_grouping_only_pct=5.5,
        n_groups=8,
    )
    collector.experiments = [
        builders.experiment(
            0,
            layer_stats=[
                builders.tensor(),
                builders.tensor("layer_0.x_conv_out:input_reordered", reorder=effect),
                builders.tensor("lm_head:input", other=builders.fields({"kurtosis": 3.75})),
            ],
            reorder_summary=pb.ReorderSummary(
                enabled=True, avg_range_reduction=12.5, total_layers=4, avg_range_reduction_grouping_only=3.25
            ),
            phases=[pb.PhaseDuration(phase="calibrate", duration_s=41.5)],
            calibration=builders.fields({"data_set": "builtin"}),
            model_size_bytes=builders.fields({"before": 1000, "after": 251}),
            artifact=builders.fields({"path": "out/w8a8"}),
            dropped=[pb.DroppedEvents(kind="layer_stats", count=2)],
            other=builders.fields({"tags": ["good", "first"]}),
        )
    ]
    collector.experiments[0].results.fp16.CopyFrom(builders.results(0.5433, 9.125))
    out = qlog("show", "0", "--collector", collector.endpoint).out
    for text in (
        *("[-127.35, 156.82]", "284.17", "265.8", "6.46 %", "0.0500 %", "0.0410 %", "1.144", "31.5"),
        *("x_conv_out:input_reordered", "25.0", "5.5", "12.5 %", "3.25 %", "kurtosis", "3.75"),
        *("gutenberg_cloze", "0.0113", "1000", "12.25", "0.5433", "9.125", "41.5 s", "builtin", "251", "out/w8a8"),
        *("layer_stats", "good, first", "torch", "2.13.0", "mamba1", "quantizer run mamba-2m --quantize"),
    ):
        assert text in out, text


def test_json_is_the_record(qlog: Qlog, collector: FakeCollector) -> None:
    """The same keys in the same order as in the log, statistics included, and no number of ours."""
    record = json.loads(qlog("show", "0", "--format", "json", "--collector", collector.endpoint).out)
    assert next(iter(record)) == "timestamp"
    assert "number" not in record
    tensor = record["activation_stats"]["layer_0.x_proj:input"]
    assert tensor["before_percentile"]["max"] == 156.82
    assert record["results"]["tasks"]["gutenberg_cloze"]["acc_stderr"] == 0.0113


def test_csv_has_a_line_for_every_key(qlog: Qlog, collector: FakeCollector) -> None:
    """Dotted keys and plain values."""
    rows = dict(csv.reader(io.StringIO(qlog("show", "0", "--format", "csv", "--collector", collector.endpoint).out)))
    assert rows["number"] == "0"
    assert rows["config.percentile_alpha"] == ""
    assert rows["activation_stats.layer_0.x_proj:input.measured_clipped_ratio"] == "0.00041"


def test_a_damaged_line_says_where_it_is_damaged(qlog: Qlog, collector: FakeCollector) -> None:
    """Nothing is made up for it."""
    out = qlog("show", "2", "--collector", collector.endpoint).out
    assert "CORRUPT" in out
    assert "byte 812" in out
    assert "Configuration" not in out


def test_a_line_of_the_earlier_logger_is_shown(qlog: Qlog, collector: FakeCollector) -> None:
    """It has no id and no status, and all else that it has is there."""
    out = qlog("show", "1", "--collector", collector.endpoint).out
    assert "python main.py" in out
    assert "0.5205" in out


def test_one_that_runs_is_shown_as_far_as_it_has_come(qlog: Qlog, collector: FakeCollector) -> None:
    """Its phase and progress."""
    collector.running["0199ffff-0001"] = builders.run_events()[:4]
    out = qlog("show", "0199ffff", "--collector", collector.endpoint).out
    assert "RUNNING" in out
    assert "calibrate 2/2 documents" in out


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [(["99"], 1, "99"), ([""], 2, "REF"), (["--bogus"], 2, "--bogus"), ([], 2, "REF"), (["0", "1"], 2, "1")],
)
def test_what_is_no_experiment(
    qlog: Qlog, collector: FakeCollector, arguments: list[str], code: int, word: str
) -> None:
    """One line that names it; a mistyped option is not taken for a REF."""
    ran = qlog("show", *arguments, "--collector", collector.endpoint)
    assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1)
    assert word in ran.err
