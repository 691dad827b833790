import csv
import io
import json
from collections.abc import Callable

import pytest

from tests.client import builders
from tests.client.conftest import Ran
from tests.client.fakes import FakeCollector

Qlog = Callable[..., Ran]


def numbers(ran: Ran) -> list[int | None]:
    return [entry["number"] for entry in json.loads(ran.out)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], [0, 1, 2, 3, 4]),
        (["--last", "2"], [3, 4]),
        (["--last", "4"], [1, 2, 3, 4]),
        (["--last", "99"], [0, 1, 2, 3, 4]),
        (["--last", "0"], [0, 1, 2, 3, 4]),
        (["--all"], [0, 1, 2, 3, 4]),
        (["--last", "2", "--sort", "-number"], [4, 3]),
        (["--last", "2", "--running"], [3, 4, None, None]),
        (["--all", "--running"], [0, 1, 2, 3, 4, None, None]),
        (["--last", "1", "--running", "--sort", "-number"], [None, None, 4]),
    ],
)
def test_the_last_ones_by_number(
    qlog: Qlog, collector: FakeCollector, options: list[str], expected: list[int | None]
) -> None:
    """The last N, newest last, over as many pages as it takes; running ones, where wanted, are the newest."""
    collector.running = {"0199ffff-0001": builders.run_events()[:2], "0199ffff-0002": []}
    ran = qlog("list", "--format", "json", "--collector", collector.endpoint, *options)
    assert (ran.code, ran.err) == (0, "")
    assert numbers(ran) == expected


def test_running_ones_cost_nothing_where_there_are_none(qlog: Qlog, collector: FakeCollector) -> None:
    """Without any, --running does not read the whole list."""
    collector.experiments = [builders.experiment(number) for number in range(100)]
    ran = qlog("list", "--running", "--last", "2", "--format", "json", "--collector", collector.endpoint)
    assert numbers(ran) == [98, 99]
    assert len(collector.requests) == 1


@pytest.mark.parametrize("options", [[], ["--all"]])
def test_running_ones_stand_by_their_start(qlog: Qlog, collector: FakeCollector, options: list[str]) -> None:
    """The newest last, and first where the newest come first: one order and its reverse."""
    collector.running = {"0199ffff-0001": [], "0199ffff-0002": []}
    where = ["--running", *options, "--format", "json", "--collector", collector.endpoint]
    upwards, downwards = (json.loads(qlog("list", *where, "--sort", sort).out) for sort in ("number", "-number"))
    assert [entry["experiment_id"] for entry in upwards][-2:] == list(collector.running)
    assert downwards == upwards[::-1]


def test_each_entry_in_json_has_what_scripts_read(qlog: Qlog, collector: FakeCollector) -> None:
    """The named keys come first, and the record's further keys after them."""
    ran = qlog("list", "--format", "json", "--collector", collector.endpoint)
    entries = json.loads(ran.out)
    first = ["number", "experiment_id", "timestamp", "status", "config", "results", "reorder_summary", "duration_s"]
    assert all(list(entry)[: len(first)] == first for entry in entries)
    assert entries[0]["results"]["accuracy"] == 0.5205
    assert entries[0]["environment"] == {"torch": "2.13.0", "host": "gpu1"}
    assert (entries[1]["experiment_id"], entries[1]["status"]) == (None, None)
    assert entries[2]["status"] == "CORRUPT"
    assert "byte 812" in entries[2]["error"]
    assert (entries[3]["status"], entries[3]["error"]) == ("FAILED", "boom")
    assert entries[4]["config"]["percentile_alpha"] == 1.0


def test_the_table_has_a_line_for_every_experiment(qlog: Qlog, collector: FakeCollector) -> None:
    """Damaged and failed lines too; columns are aligned, and nothing is coloured or boxed."""
    lines = qlog("list", "--collector", collector.endpoint).out.splitlines()
    assert [line.split()[0] for line in lines] == ["#", "0", "1", "2", "3", "4"]
    assert lines[0].split() == [
        *("#", "id", "time", "model", "bits", "alpha", "grouping", "GPTQ", "accuracy", "perplexity", "status"),
        "duration",
    ]
    assert "mamba-2m  W8A8  default  no        no      0.5205       9.621  COMPLETED  1 min 23 s" in lines[1]
    assert "CORRUPT" in lines[3]
    assert "default" not in lines[3]
    assert "FAILED" in lines[4]
    assert "模型-2m   W8A8      1.0" in lines[5]
    assert not set("\x1b│┃─") & set("".join(lines))


def test_csv_has_the_plain_values(qlog: Qlog, collector: FakeCollector) -> None:
    """Whole ids, all digits, seconds; null is empty."""
    rows = list(csv.DictReader(io.StringIO(qlog("list", "--format", "csv", "--collector", collector.endpoint).out)))
    assert rows[0]["id"] == builders.IDS[0]
    assert (rows[0]["alpha"], rows[4]["alpha"]) == ("", "1.0")
    assert rows[0]["duration"] == "83.25"
    assert rows[0]["grouping"] == "false"


def test_columns_are_chosen_by_name_or_path(qlog: Qlog, collector: FakeCollector) -> None:
    """In the order given; a dotted path reaches into the record, also through names with dots and commas' ends."""
    options = ["--columns", "model, number,config.calib_seqlen,results.tasks.gutenberg_cloze.acc,config.nothing"]
    where = ["--last", "1", "--collector", collector.endpoint]
    lines = qlog("list", *options, *where).out.splitlines()
    assert lines[0].split() == [
        *("model", "#", "config.calib_seqlen", "results.tasks.gutenberg_cloze.acc", "config.nothing"),
    ]
    assert lines[1].split() == ["模型-2m", "4", "512", "0.5205", "-"]
    entry = json.loads(qlog("list", *options, *where, "--format", "json").out)[0]
    assert list(entry)[:2] == ["model", "number"]
    assert entry["config.calib_seqlen"] == 512


@pytest.mark.parametrize(
    "options", [["--columns", "modle"], ["--columns", ","], ["--last", "-1"], ["--sort", "id,model"]]
)
def test_wrong_options_are_wrong_usage(qlog: Qlog, collector: FakeCollector, options: list[str]) -> None:
    """One line, exit code 2, nothing on the standard output."""
    ran = qlog("list", *options, "--collector", collector.endpoint)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)


def test_a_filter_is_the_servers_to_judge(qlog: Qlog, collector: FakeCollector) -> None:
    """It goes to the server as it is, and the server's answer to the user."""
    ran = qlog("list", "--filter", "acuracy > 1", "--collector", collector.endpoint)
    assert collector.requests[-1].filter == "acuracy > 1"
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines() == [
        "qlog: no experiment has a field 'acuracy': did you mean accuracy?",
        "  acuracy > 1",
        "  ^^^^^^^",
    ]


def test_a_sort_is_the_servers(qlog: Qlog, collector: FakeCollector) -> None:
    """Of all that match at once; of the last N, of these."""
    qlog("list", "--all", "--sort", "-bits", "--collector", collector.endpoint)
    assert collector.requests[-1].order_by == "config.w_bits desc, config.a_bits desc"
    qlog("list", "--last", "2", "--sort", "accuracy", "--filter", "x", "--collector", collector.endpoint)
    assert collector.requests[-1].order_by == "accuracy"
    assert collector.requests[-1].filter == "(x) (number >= 3 OR number: null)"


def test_an_empty_store_says_so(qlog: Qlog) -> None:
    """A table says what to do; the other forms are empty in their own way."""
    with FakeCollector() as empty:
        where = ["list", "--collector", empty.endpoint]
        told = qlog(*where)
        assert (told.code, told.err) == (0, "")
        assert "no experiments" in told.out
        assert "quantizer run" in told.out
        assert json.loads(qlog(*where, "--format", "json").out) == []
        assert qlog(*where, "--format", "csv").out.startswith("number,id,")
        assert "no experiments" in qlog(*where, "--format", "markdown").out


def test_names_from_the_store_steer_no_terminal(qlog: Qlog, collector: FakeCollector) -> None:
    """An escape sequence in a model's name is shown as text in every form."""
    collector.experiments = [builders.experiment(0, config=builders.config(model="evil\x1b[2J\n|name"))]
    for form in ("table", "csv", "markdown", "json"):
        ran = qlog("list", "--format", form, "--collector", collector.endpoint)
        assert "\x1b" not in ran.out
        assert "evil" in ran.out
    assert json.loads(ran.out)[0]["config"]["model"] == "evil\x1b[2J\n|name"
