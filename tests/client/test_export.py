"""`qlog export` on real collectors: what it writes is what the log has."""

import csv
import io
import json
import math
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from qlog.v1 import common_pb2 as pb

from client.errors import OutputError
from client.row_spool import Kind, RowSpool, as_kind
from client.whole_file import whole_file
from collector.embedded import LocalCollector, open_local
from tests.client import builders
from tests.client.conftest import PROGRAM, Ran, environment
from tests.client.test_local import EARLIER, RUN, STORE, append
from tests.collector.builders import begin, finish, new_id

pyarrow_parquet = pytest.importorskip("pyarrow.parquet")

Qlog = Callable[..., Ran]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[LocalCollector]:
    """A store with a line of the earlier logger, a damaged one, a run, and a run with statistics of the user's own."""
    log_dir = tmp_path / "store"
    log_dir.mkdir()
    (log_dir / STORE).write_text(f'{json.dumps(EARLIER)}\n{{"broken\n')
    with open_local(log_dir) as local:
        append(local.endpoint, builders.run_events())
        own = builders.tensor("layer_11.out_proj:input", other=builders.fields({"kurtosis": 3.5, "note": ["a", 1]}))
        nan = builders.tensor("lm_head:input", other=builders.fields({"kurtosis": math.nan}), scale=math.inf)
        more = [begin("mamba2-4m", percentile_alpha=0.999), pb.Event(layer_stats=own), pb.Event(layer_stats=nan)]
        append(local.endpoint, [*more, finish()], experiment_id=new_id())
        yield local


def exported(qlog: Qlog, local: LocalCollector, *arguments: str) -> str:
    ran = qlog("export", *arguments, "--collector", local.endpoint)
    assert (ran.code, ran.err) == (0, "")
    return ran.out


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def parquet(qlog: Qlog, local: LocalCollector, path: Path, *arguments: str) -> Any:
    ran = qlog("export", *arguments, "--output", str(path), "--collector", local.endpoint)
    assert ran.code == 0
    return pyarrow_parquet.read_table(path)


def test_jsonl_is_the_log_byte_by_byte(qlog: Qlog, writer: LocalCollector, tmp_path: Path) -> None:
    """On the standard output and in a file, damaged lines too."""
    log = (tmp_path / "store" / STORE).read_bytes()
    assert exported(qlog, writer).encode() == log
    ran = qlog("export", "--output", str(tmp_path / "copy"), "--collector", writer.endpoint)
    assert (ran.code, ran.out) == (0, "")
    assert "4 lines in" in ran.err
    assert (tmp_path / "copy").read_bytes() == log


def test_a_row_an_experiment(qlog: Qlog, writer: LocalCollector) -> None:
    """With its number; null is empty, a name is a path into the record, and no column is an object."""
    rows = table(exported(qlog, writer, "--format", "csv"))
    assert [row["number"] for row in rows] == ["0", "1", "2", "3"]
    assert [row["status"] for row in rows] == ["", "CORRUPT", "COMPLETED", "COMPLETED"]
    assert [row["config.percentile_alpha"] for row in rows] == ["1.0", "", "", "0.999"]
    assert rows[0]["results.perplexity"] == "NaN"
    assert rows[2]["experiment_id"] == RUN
    assert rows[2]["results.tasks.gutenberg_cloze.acc_stderr"] == "0.0113"
    assert rows[2]["config.observer"] == "ema"
    assert rows[2]["results.ppl.gutenberg"] == "12.25"
    assert {"config", "results", "reorder_summary", "activation_stats", "artifact"}.isdisjoint(rows[0])


def test_a_row_a_tensor(qlog: Qlog, writer: LocalCollector) -> None:
    """Every statistic, those of the user's own too, with what tells the experiment and the layer."""
    rows = table(exported(qlog, writer, "--stats"))
    assert [(row["number"], row["tensor"], row["layer"]) for row in rows] == [
        ("0", "layer_0.x_proj:input", "0"),
        ("2", "layer_0.x_proj:input", "0"),
        ("3", "layer_11.out_proj:input", "11"),
        ("3", "lm_head:input", ""),
    ]
    assert [row["kurtosis"] for row in rows] == ["", "", "3.5", "NaN"]
    assert rows[2]["note"] == '["a", 1]'
    assert rows[1]["before_percentile.range"] == "284.16999999999996"
    assert rows[3]["scale"] == "Infinity"
    assert (rows[2]["config.model"], rows[2]["config.percentile_alpha"]) == ("mamba2-4m", "0.999")


def test_parquet_has_the_same_rows_typed(qlog: Qlog, writer: LocalCollector, tmp_path: Path) -> None:
    """Whole numbers, fractions, yes and no, text; what is not finite is a number there."""
    layers = parquet(qlog, writer, tmp_path / "layers.parquet", "--table", "layers")
    types = {field.name: str(field.type) for field in layers.schema}
    assert types["number"] == types["layer"] == types["count"] == "int64"
    assert types["kurtosis"] == types["scale"] == types["config.percentile_alpha"] == "double"
    assert (types["config.group_heads"], types["tensor"]) == ("bool", "string")
    rows = layers.to_pylist()
    assert math.isnan(rows[3]["kurtosis"])
    assert rows[3]["scale"] == math.inf
    assert rows[2]["note"] == '["a", 1]'
    experiments = parquet(qlog, writer, tmp_path / "experiments.parquet").to_pylist()
    assert [row["number"] for row in experiments] == [0, 1, 2, 3]
    assert experiments[3]["config.percentile_alpha"] == 0.999
    text = table(exported(qlog, writer, "--format", "csv"))
    assert list(experiments[0]) == list(text[0])


def test_an_empty_store_is_an_empty_table(qlog: Qlog, tmp_path: Path) -> None:
    """A header, typed as that of a full one, and no rows."""
    with open_local(tmp_path / "store") as local:
        assert exported(qlog, local) == ""
        assert exported(qlog, local, "--format", "csv").startswith("number,experiment_id,")
        empty = parquet(qlog, local, tmp_path / "x.parquet", "--stats")
        assert empty.num_rows == 0
        assert str(empty.schema.field("sqnr_db").type) == "double"


def test_the_ending_of_the_file_names_the_form(qlog: Qlog, writer: LocalCollector, tmp_path: Path) -> None:
    """--format where the ending says nothing else; it weighs more."""
    for name, options, start in (
        ("a.csv", [], b"number,"),
        ("a.jsonl", [], b'{"timestamp"'),
        ("a.parquet", [], b"PAR1"),
        ("a", ["--stats"], b"number,"),
        ("b.parquet", ["--format", "csv"], b"number,"),
    ):
        ran = qlog("export", "--output", str(tmp_path / name), *options, "--collector", writer.endpoint)
        assert ran.code == 0
        assert (tmp_path / name).read_bytes().startswith(start)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--format", "jsonl", "--stats"],
        ["--format", "parquet"],
        ["--format", "table"],
        ["--stats", "--table", "experiments"],
        ["--table", "x"],
    ],
)
def test_what_makes_no_sense_is_wrong_usage(qlog: Qlog, arguments: list[str]) -> None:
    """One line, before anything is asked."""
    ran = qlog("export", *arguments, "--collector", "127.0.0.1:1")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """What fails in the middle leaves the file of before, and nothing beside it; rights are those of any new file."""
    target = tmp_path / "file"
    with whole_file(target) as file:
        file.write(b"first")
    with pytest.raises(TypeError), whole_file(target) as file:
        file.writelines([b"second", 2])  # type: ignore[list-item]
    assert target.read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~mask
    link = tmp_path / "link"
    link.symlink_to(target)
    with whole_file(link) as file:
        file.write(b"third")
    assert link.is_symlink()
    assert target.read_bytes() == b"third"
    for wrong in (tmp_path, tmp_path / "nowhere" / "file"):
        with pytest.raises(OutputError, match=str(wrong)), whole_file(wrong):
            pass


def test_a_file_that_cannot_be_written_is_one_line(qlog: Qlog, writer: LocalCollector, tmp_path: Path) -> None:
    """Exit code 1, with its name."""
    for form in ("jsonl", "csv", "parquet"):
        where = str(tmp_path / "nowhere" / "file")
        ran = qlog("export", "--format", form, "--output", where, "--collector", writer.endpoint)
        assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
        assert where in ran.err


def test_a_pipe_is_written_to_as_it_is(writer: LocalCollector) -> None:
    """/dev/stdout is a file that is not replaced; a reader that goes away is no error."""
    command = " ".join([*PROGRAM, "export", "--collector", writer.endpoint])
    for line in (f"{command} --format csv --output /dev/stdout | wc -l", f"{command} | head -c 10 | wc -l"):
        ran = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=environment(), check=True)
        assert ran.stdout.strip() in {"5", "0"}
        assert "Traceback" not in ran.stderr
        assert "cannot" not in ran.stderr


def test_without_pyarrow_one_line_says_what_to_install(writer: LocalCollector, tmp_path: Path) -> None:
    """And the file is not begun."""
    code = (
        "import sys; sys.modules['pyarrow'] = None; import importlib.machinery as m\n"
        "find = m.PathFinder.find_spec\n"
        "m.PathFinder.find_spec = lambda name, *a, **k: None if name == 'pyarrow' else find(name, *a, **k)\n"
        "del sys.modules['pyarrow']\n"
        "from client.entry import main\n"
        f"sys.exit(main(['export', '--output', {str(tmp_path / 'x.parquet')!r}, '--collector', {writer.endpoint!r}]))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (1, "", 1)
    assert "pip install 'qlog-ssm[parquet]'" in ran.stderr
    assert not (tmp_path / "x.parquet").exists()


def test_columns_are_those_of_all_rows() -> None:
    """Rows of different names have all columns; a column is of the kind that holds all that stands in it."""
    with RowSpool({"a": Kind.DOUBLE, "b": Kind.INT}) as spool:
        spool.add({"a": 1, "c": True, "d": "NaN"})
        spool.add({"d": 2, "e": 1.5})
        spool.add({"e": "text", "b": None})
        assert spool.columns() == {
            "a": Kind.DOUBLE,
            "b": Kind.INT,
            "c": Kind.BOOL,
            "d": Kind.DOUBLE,
            "e": Kind.TEXT,
        }
        assert list(spool.rows(["e", "a"])) == [(None, 1), (1.5, None), ("text", None)]
    assert as_kind("-Infinity", Kind.DOUBLE) == -math.inf
    assert as_kind(1.5, Kind.TEXT) == "1.5"
    assert as_kind(None, Kind.TEXT) is None


@pytest.mark.parametrize("cut", [0, 1, 200, -1, -40, None])
def test_an_export_goes_on_where_a_file_ends(
    qlog: Qlog, writer: LocalCollector, tmp_path: Path, cut: int | None
) -> None:
    """Wherever it was broken off, in a line or behind one, the file becomes the log; then again, with what is new."""
    log = tmp_path / "store" / STORE
    file = tmp_path / "copy.jsonl"
    file.write_bytes(log.read_bytes()[:cut])
    where = ("export", "--resume", "-o", str(file), "--collector", writer.endpoint)
    ran = qlog(*where)
    assert (ran.code, ran.out) == (0, "")
    assert file.read_bytes() == log.read_bytes()
    append(writer.endpoint, [begin("mamba2-4m"), finish()], experiment_id=new_id())
    assert "1 more line in" in qlog(*where).err
    assert file.read_bytes() == log.read_bytes()


@pytest.mark.parametrize("change", [lambda data: data[:-3] + b"x\n", lambda data: data + b"{}\n"])
def test_a_file_of_another_log_is_not_gone_on_with(
    qlog: Qlog, writer: LocalCollector, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    """Another last line, or more lines than the log has: one line says so, and the file is as it was."""
    file = tmp_path / "copy.jsonl"
    file.write_bytes(change((tmp_path / "store" / STORE).read_bytes()))
    before = file.read_bytes()
    ran = qlog("export", "--resume", "-o", str(file), "--collector", writer.endpoint)
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "no beginning of this log" in ran.err
    assert file.read_bytes() == before


@pytest.mark.parametrize("more", [(), ("--filter", "mamba"), ("--as_shown",), ("--format", "csv")])
def test_only_the_whole_log_can_be_gone_on_with(qlog: Qlog, writer: LocalCollector, more: tuple[str, ...]) -> None:
    """Of parts and tables nobody knows where they end."""
    output = ("-o", "x.jsonl") if more else ()
    ran = qlog("export", "--resume", *output, *more, "--collector", writer.endpoint)
    assert (ran.code, ran.out) == (2, "")
    assert "--resume is of the whole log" in ran.err


@pytest.mark.long
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_tables_take_the_memory_of_a_page(tmp_path: Path, form: str) -> None:
    """10,000 experiments take no more than 1,000: rows wait on disk, not in memory."""
    peaks = []
    for lines in (1000, 10_000):
        log_dir = tmp_path / str(lines)
        log_dir.mkdir()
        record = {**EARLIER, "activation_stats": {f"layer_{i}.x_proj:input": TENSOR for i in range(8)}}
        (log_dir / STORE).write_text(f"{json.dumps(record)}\n" * lines)
        with open_local(log_dir) as local:
            peaks.append(_peak_kb("--stats", "-o", str(tmp_path / f"{lines}.{form}"), "--collector", local.endpoint))
    assert peaks[1] < peaks[0] * 1.25


TENSOR = {
    "before_percentile": {"min": -127.35, "max": 156.82, "range": 284.17},
    "after_percentile": {"min": -120.50, "max": 145.30, "range": 265.80},
    "percentile_alpha": 0.9995,
    "clipped_ratio": 0.0005,
    "range_reduction": 0.0646,
}


def _peak_kb(*arguments: str) -> int:
    """The largest resident memory of an export in a process of its own."""
    code = (
        "import resource, sys; from client.entry import main; code = main(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, "export", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
    return int(ran.stdout)
