"""`--statistics`: the README's example from the command line to the record and to what qlog shows of it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.entry import main as qlog
from quamba.statistics import isolated
from quantizer.statistics import VARIABLE
from tests.documents import ROOT, Document
from tests.processes import running
from tests.quantizer.runs import numbers, records, run, write_inputs

NAMES = ("kurtosis", "steps_used")


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(VARIABLE, "")
    with isolated():
        yield


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The README's file."""
    (source,) = Document(ROOT / "README.md").blocks("py")
    path = tmp_path / "my_statistics.py"
    path.write_text(source, encoding="utf-8")
    return path


def test_the_readmes_example_reaches_the_record_and_qlog(
    tmp_path: Path, example: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The values stand beside the others' for every tensor; `show` and `compare` show them in every format."""
    _, words = write_inputs(tmp_path)
    assert run(words, tmp_path, "--statistics", str(example)) == 0
    assert run(words, tmp_path, "--statistics", str(example), "--percentile_alpha", "0.9") == 0
    first, second = (record["activation_stats"] for record in records(tmp_path))
    assert len(first) == 15
    for tensor in first.values():
        assert 1.0 < tensor["kurtosis"] < 1000
        assert 100 < tensor["steps_used"] <= 254.001
    assert first["layer_0.x_proj:input"] != second["layer_0.x_proj:input"]
    store = ["--log_dir", str(tmp_path)]
    capsys.readouterr()
    for form in ("table", "markdown", "csv", "json"):
        for verb in (["show", "0"], ["compare", "0", "1"]):
            assert qlog([*store, *verb, "--format", form]) == 0
            shown = capsys.readouterr().out
            assert all(name in shown for name in NAMES), (form, verb)
    assert qlog([*store, "show", "0", "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)["activation_stats"]["layer_0.x_proj:input"]
    assert shown["kurtosis"] == first["layer_0.x_proj:input"]["kurtosis"]
    assert qlog([*store, "compare", "0", "1"]) == 0
    table = capsys.readouterr().out.partition("Statistics of your own")[2]
    assert re.search(r"^\* layer_0\.x_proj:input ", table, re.MULTILINE)
    assert "layer_0.in_proj:input" not in table  # It is the same in both.


def test_numbers_of_the_experiment_do_not_change(tmp_path: Path, example: Path) -> None:
    """What is measured beside it, and what fails, leaves everything else as it was."""
    _, words = write_inputs(tmp_path)
    example.write_text(
        example.read_text() + "\n\n@statistic\ndef broken(tensor: WatchedTensor) -> float:\n    return 1 / 0\n"
    )
    assert run(words, tmp_path) == 0
    assert run(words, tmp_path, "--statistics", str(example)) == 0
    plain, measured = (numbers(record) for record in records(tmp_path))
    assert all(tensor.pop("broken") == "NaN" for tensor in measured["activation_stats"].values())
    for tensor in measured["activation_stats"].values():
        for name in NAMES:
            del tensor[name]
    assert measured == plain


def test_the_environment_names_files_too(tmp_path: Path, example: Path) -> None:
    """In a process of its own, as the workers of `quantizer serve` are."""
    _, words = write_inputs(tmp_path)
    with running("quantizer.entry", *words, "--log_dir", str(tmp_path), **{VARIABLE: str(example)}) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    (record,) = records(tmp_path)
    assert all("kurtosis" in tensor for tensor in record["activation_stats"].values())


def test_a_file_that_is_not_there_is_a_wrong_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, exit code 2, nothing recorded."""
    _, words = write_inputs(tmp_path)
    assert run(words, tmp_path, "--statistics", str(tmp_path / "none.py")) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "none.py" in error
    assert not records(tmp_path)
