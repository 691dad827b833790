"""The command line: bad input costs one line and nothing else; good input ends in a summary and a record."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from quantizer.entry import run_command
from tests.quantizer.runs import records, run, write_inputs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed: one line on standard error."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("quantizer: error: ")
    return captured.err


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--percentile_alpha", "0"], "percentile_alpha"),
        (["--percentile_alpha", "1.5"], "1.5"),
        (["--percentile_alpha", "nan"], "nan"),
        (["--w_bits", "3"], "w_bits"),
        (["--w-bits", "three"], "w_bits"),
        (["--eval_zero_shot", "--task_list", "gutenberg_close"], "gutenberg_cloze"),
        (["--calib_data", "nowhere.txt"], "nowhere.txt"),
        (["--stats_layers", "7,"], "layer 7"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--collector", "nowhere"], "HOST:PORT"),
        (["--collector", "host:99999"], "65535"),
        (["--no_such_option"], "no_such_option"),
        (["--group_heads"], "group_heads"),
    ],
)
def test_a_wrong_option_is_one_line_and_leaves_nothing_behind(
    more: list[str],
    named: str,
    inputs: tuple[Path, list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2, the value or its option named, no log directory made."""
    assert run(inputs[1], tmp_path / "logs", *more) == 2
    assert named in complaint(capsys)
    assert not (tmp_path / "logs").exists()


def test_a_perplexity_data_set_that_is_nowhere_is_one_line(
    inputs: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is found out before anything is calibrated."""
    assert run([*inputs[1][:-1], "wikitext3"], tmp_path / "logs") == 2
    assert "wikitext3" in complaint(capsys)


def break_model(model: Path, how: str) -> Path:
    if how == "missing":
        return model / "nowhere"
    if how == "no config":
        (model / "config.json").unlink()
    elif how == "unknown family":
        (model / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 8}))
    elif how == "truncated":
        weights = model / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "no weights":
        (model / "model.safetensors").unlink()
    return model


@pytest.mark.parametrize("how", ["missing", "no config", "unknown family", "truncated", "no weights"])
def test_a_model_that_cannot_be_used_is_one_line_and_leaves_nothing_behind(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged model is found before anything is recorded."""
    model, words = write_inputs(tmp_path)
    words[1] = str(break_model(model, how))
    assert run(words, tmp_path / "logs") in (1, 2)
    assert words[1] in complaint(capsys)
    assert not (tmp_path / "logs").exists()


def test_a_log_directory_that_cannot_be_written_is_one_line(
    inputs: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Told before the experiment runs, with the local store and with a collector elsewhere."""
    (tmp_path / "file").write_text("")
    assert run(inputs[1], tmp_path / "file" / "logs") == 1
    assert "logs" in complaint(capsys)
    assert run(inputs[1], tmp_path / "file" / "logs", "--collector", "127.0.0.1:1") == 1
    assert "--log_dir" in complaint(capsys)


def test_an_experiment_ends_in_a_summary_and_one_record(
    inputs: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The record has what the summary shows; the local store needs no server."""
    more = ("--percentile_alpha", "0.99", "--quantize_embedding", "--quantize_lm_head")
    assert run(inputs[1], tmp_path / "logs", *more) == 0
    shown = capsys.readouterr().out
    (record,) = records(tmp_path / "logs")
    assert record["status"] == "COMPLETED"
    assert record["config"]["percentile_alpha"] == 0.99
    assert record["command"].startswith(f"quantizer run {inputs[0]} --quantize")
    assert record["environment"]["torch"]
    assert record["model"]["family"] == "mamba1"
    assert record["model_size_bytes"]["after"] < record["model_size_bytes"]["before"]
    assert {"load", "calibrate", "quantize", "evaluate"} <= set(record["phases"])
    assert next(iter(record["activation_stats"])) in shown
    assert f"{record['results']['perplexity']:.4f}" in shown
    assert record["experiment_id"] in shown
    assert "number 0" in shown


def test_settings_stand_before_or_after_the_verb(
    inputs: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place after the verb wins over the one before it, and both over the environment."""
    monkeypatch.setenv("QLOG_LOG_DIR", str(tmp_path / "environment"))
    words = [word for word in inputs[1] if word not in ("--eval_ppl", "--ppl_dataset")][:-1]
    assert run_command(words) == 0
    assert run_command(["--log-dir", str(tmp_path / "before"), *words]) == 0
    assert run_command(["--log_dir", str(tmp_path / "unused"), *words, "--log_dir", str(tmp_path / "after")]) == 0
    assert [len(records(tmp_path / name)) for name in ("environment", "before", "after")] == [1, 1, 1]
    assert not (tmp_path / "unused").exists()


def test_a_failing_experiment_is_recorded_as_failed(
    inputs: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What goes wrong on the way ends in one line, exit code 1 and a record that says FAILED and why."""
    empty = tmp_path / "empty.txt"
    empty.write_text("x")
    assert run([*inputs[1][:-1], str(empty)], tmp_path / "logs") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    (record,) = records(tmp_path / "logs")
    assert record["status"] == "FAILED"
    assert record["error"] in error
    assert record["activation_stats"]


def test_the_baseline_is_recorded_beside_the_results(inputs: tuple[Path, list[str]], tmp_path: Path) -> None:
    """results.fp16 is the unquantized model's, measured in the same run on the same text."""
    assert run(inputs[1], tmp_path / "logs", "--eval_baseline") == 0
    plain = [
        word for word in inputs[1] if word in ("run", str(inputs[0]), "--eval_ppl", "--ppl_dataset", inputs[1][-1])
    ]
    assert run(plain, tmp_path / "logs") == 0
    quantized, unquantized = records(tmp_path / "logs")
    assert quantized["results"]["fp16"]["ppl"] == unquantized["results"]["ppl"]
    assert quantized["results"]["ppl"] != unquantized["results"]["ppl"]
    assert unquantized["config"]["w_bits"] == 16
    assert unquantized["activation_stats"] == {}


@pytest.mark.parametrize("words", [[], ["--help"], ["run", "--help"], ["serve", "-h"], ["spool", "flush", "--help"]])
def test_help_answers_without_torch(words: list[str]) -> None:
    """Neither help nor an option that is wrong by itself waits for torch, or for gRPC."""
    script = (
        "import sys; from quantizer.entry import run_command; code = run_command(sys.argv[1:]);"
        "sys.exit(code if not {'torch', 'grpc'} & set(sys.modules) else 99)"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)
    assert done.returncode == (0 if words else 2), done.stderr
    assert "quantizer" in done.stdout + done.stderr


def test_every_option_of_the_specification_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """The one table of options is what `run` offers, with both spellings."""
    from qlog.v1.spec_pb2 import ExperimentSpec

    assert run_command(["run", "--help"]) == 0
    shown = capsys.readouterr().out
    for field in ExperimentSpec.DESCRIPTOR.fields:
        if field.name != "model":
            assert f"--{field.name}" in shown
            assert f"--{field.name.replace('_', '-')}" in shown


def test_an_empty_spool_is_told_and_made_by_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Looking at a spool that is not there makes none."""
    for verb in ("status", "flush"):
        assert run_command(["spool", verb, "--log_dir", str(tmp_path / "logs")]) == 0
        assert "nothing waits" in capsys.readouterr().out
    assert not (tmp_path / "logs").exists()


def test_one_task_with_and_without_examples_is_two_results(inputs: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Zero-shot and few-shot in one run do not overwrite each other; the headline is the first's."""
    words = ["run", str(inputs[0]), "--eval_zero_shot", "--eval_few_shot", "--fewshot", "2", "--limit", "4"]
    assert run([*words, "--task_list", "gutenberg_cloze"], tmp_path / "logs") == 0
    (record,) = records(tmp_path / "logs")
    tasks = record["results"]["tasks"]
    assert {name: task["num_fewshot"] for name, task in tasks.items()} == {
        "gutenberg_cloze": 0,
        "gutenberg_cloze@2shot": 2,
    }
    assert record["results"]["accuracy"] == tasks["gutenberg_cloze"]["acc"]


def test_without_words_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """A bare `quantizer` prints its help as it is, and ends as wrong usage."""
    assert run_command([]) == 2
    assert capsys.readouterr().err.startswith("Usage: quantizer")


def test_the_light_installation_says_what_is_missing(inputs: tuple[Path, list[str]]) -> None:
    """Where torch and numpy are not installed, a run ends in one line that says how to install them."""
    code = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "numpy"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from quantizer.entry import main
main(sys.argv[1:])
"""
    command = [sys.executable, "-c", code, "run", str(inputs[0]), "--quantize"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is not installed; run pip install" in done.stderr
    assert done.stderr.count("\n") == 1
