import csv
import io
import json
from collections.abc import Callable

import pytest
from qlog.v1 import collector_pb2 as pb

from client.compare_wire import UNITS
from tests.client import builders
from tests.client.conftest import Ran
from tests.client.fakes import FakeCollector

Qlog = Callable[..., Ran]


def config_row(key: str, *values: object, differs: bool = True) -> pb.ConfigRow:
    cells = [pb.ConfigCell() if value is ... else pb.ConfigCell(value=builders.value(value)) for value in values]
    return pb.ConfigRow(key=key, cells=cells, differs=differs)


@pytest.fixture
def comparison(collector: FakeCollector) -> FakeCollector:
    collector.comparison = pb.CompareExperimentsResponse(
        experiments=[builders.experiment(0, layer_stats=[]), builders.experiment(4, layer_stats=[])],
        config=[
            config_row("model", "mamba-2m", "mamba-2m", differs=False),
            config_row("percentile_alpha", None, 1.0),
            config_row("hybrid", ..., "x|y"),
        ],
        results=[
            pb.MetricRow(
                name="accuracy",
                unit=pb.METRIC_UNIT_FRACTION,
                differs=True,
                cells=[
                    pb.MetricCell(value=0.5205, stderr=0.01),
                    pb.MetricCell(
                        value=0.508, stderr=0.011, difference=-1.25, difference_stderr=1.4866, exceeds_stderr=False
                    ),
                ],
            ),
            pb.MetricRow(
                name="perplexity",
                unit=pb.METRIC_UNIT_PLAIN,
                differs=True,
                cells=[pb.MetricCell(value=9.5), pb.MetricCell(value=9.75, difference=0.25)],
            ),
            pb.MetricRow(
                name="model_size_bytes.before",
                unit=pb.METRIC_UNIT_BYTES,
                differs=True,
                cells=[pb.MetricCell(value=9187584), pb.MetricCell(value=4712208, difference=-4475376)],
            ),
            pb.MetricRow(name="duration_s", cells=[pb.MetricCell(value=3.0), pb.MetricCell()], differs=True),
        ],
        tensors=[
            pb.TensorRow(
                name="layer_0.x_proj:input",
                differs=True,
                cells=[
                    pb.TensorCell(stats=builders.tensor()),
                    pb.TensorCell(stats=builders.tensor(range_reduction=0.5)),
                ],
            ),
            pb.TensorRow(
                name="lm_head:input", differs=True, cells=[pb.TensorCell(), pb.TensorCell(stats=builders.tensor())]
            ),
            pb.TensorRow(name="same", differs=False, cells=[pb.TensorCell(stats=builders.tensor())] * 2),
        ],
    )
    return collector


@pytest.mark.parametrize("refs", [["0", "4"], ["0,4"], ["-5", "-1"], ["0,", "4"]])
def test_refs_stand_apart_or_with_commas(qlog: Qlog, comparison: FakeCollector, refs: list[str]) -> None:
    """Two words, one word with a comma, numbers from the end."""
    assert qlog("compare", *refs, "--collector", comparison.endpoint).code == 0
    assert list(comparison.requests[-1].refs) == [part for ref in refs for part in ref.split(",") if part]


def test_only_what_differs_is_shown_and_marked(qlog: Qlog, comparison: FakeCollector) -> None:
    """Equal rows come with --all, unmarked; a key that one has not is told from a null."""
    where = ["compare", "0", "4", "--collector", comparison.endpoint]
    some, every = qlog(*where).out, qlog(*where, "--all").out
    assert "* percentile_alpha  default  1.0" in some
    assert "* hybrid            (none)   x|y" in some
    assert "\n  model " not in some
    assert "same" not in some
    assert "\n  model " in every
    assert "\n  same " in every
    assert "\n* percentile_alpha" in every


def test_differences_are_signed_and_judged(qlog: Qlog, comparison: FakeCollector) -> None:
    """Accuracy in points with its standard error and the verdict, perplexity in its own unit."""
    out = qlog("compare", "0", "4", "--collector", comparison.endpoint).out
    assert "-1.25 points ± 1.49 (within its standard error)" in out
    assert "+0.25\n" in out
    assert "0.5205 ± 0.01" in out
    comparison.comparison.results[0].cells[1].exceeds_stderr = True
    assert "(exceeds its standard error)" in qlog("compare", "0", "4", "--collector", comparison.endpoint).out


def test_bytes_are_shown_in_short_and_told_exactly(qlog: Qlog, comparison: FakeCollector) -> None:
    """Megabytes for people; whole numbers, all of their digits, for programs."""
    where = ["compare", "0", "4", "--collector", comparison.endpoint]
    (line,) = (line for line in qlog(*where).out.splitlines() if "model_size_bytes" in line)
    assert line.split() == ["*", "model_size_bytes.before", *("9.19", "MB"), *("4.71", "MB"), *("-4.48", "MB")]
    row = next(row for row in json.loads(qlog(*where, "--format", "json").out)["results"] if row["unit"] == "bytes")
    assert repr(row["cells"]) == "[{'value': 9187584}, {'value': 4712208, 'difference': -4475376}]"
    assert "results,model_size_bytes.before,true,9187584,4712208,-4475376,," in qlog(*where, "--format", "csv").out


def test_every_unit_is_known() -> None:
    """The table of units is total."""
    assert set(UNITS) == set(pb.MetricUnit.values())


def test_tensors_are_aligned_by_name(qlog: Qlog, comparison: FakeCollector) -> None:
    """Ranges before and after of each; one that only one has shows it."""
    lines = qlog("compare", "0", "4", "--collector", comparison.endpoint).out.splitlines()
    both = next(line for line in lines if "x_proj:input" in line)
    single = next(line for line in lines if "lm_head:input" in line)
    assert both.count("284.17 [-127.35, 156.82]") == 2
    assert both.count("265.8 [-120.5, 145.3]") == 2
    assert "50.00 %" in both
    assert single.count("(none)") == 3


def test_json_has_everything(qlog: Qlog, comparison: FakeCollector) -> None:
    """Equal rows too; what is absent is an empty object."""
    data = json.loads(qlog("compare", "0", "4", "--format", "json", "--collector", comparison.endpoint).out)
    assert [entry["number"] for entry in data["experiments"]] == [0, 4]
    assert [row["key"] for row in data["config"]] == ["model", "percentile_alpha", "hybrid"]
    assert data["config"][2]["cells"] == [{}, {"value": "x|y"}]
    assert data["config"][1]["cells"] == [{"value": None}, {"value": 1.0}]
    assert data["results"][0]["unit"] == "fraction"
    assert data["results"][0]["cells"][1]["difference"] == -1.25
    assert data["tensors"][1]["cells"][0] == {}
    assert data["tensors"][1]["cells"][1]["before_percentile"]["min"] == -127.35


def test_csv_has_one_line_a_row(qlog: Qlog, comparison: FakeCollector) -> None:
    """Values of each experiment in their columns, differences after them, every line as long as the header."""
    ran = qlog("compare", "0", "4", "--format", "csv", "--collector", comparison.endpoint)
    header, *rows = csv.reader(io.StringIO(ran.out))
    assert header[:5] == ["section", "name", "differs", "#0", "#4"]
    assert {len(row) for row in rows} == {len(header)}
    accuracy = next(dict(zip(header, row, strict=True)) for row in rows if row[1] == "accuracy")
    assert (accuracy["#4"], accuracy["difference #4"], accuracy["exceeds_stderr #4"]) == ("0.508", "-1.25", "false")


def test_no_difference_is_said(qlog: Qlog, comparison: FakeCollector) -> None:
    """Equal experiments are not answered with silence."""
    comparison.comparison.ClearField("results")
    comparison.comparison.ClearField("tensors")
    comparison.comparison.ClearField("config")
    assert "no differences" in qlog("compare", "0", "4", "--collector", comparison.endpoint).out


@pytest.mark.parametrize("refs", [[], ["0"], ["0", ""], ["0", "--al"]])
def test_less_than_two_is_wrong_usage(qlog: Qlog, comparison: FakeCollector, refs: list[str]) -> None:
    """One line, exit code 2."""
    ran = qlog("compare", *refs, "--collector", comparison.endpoint)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
