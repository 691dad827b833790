"""Several experiments of one calibration, and quantized models that are kept: the same numbers as one by one."""

from pathlib import Path
from typing import Any

import pytest

from quantizer import workbench
from tests.quantizer.runs import numbers, records, run, write_inputs

ALPHAS = ("0.99", "1.0", "auto")


def stripped(record: dict[str, Any]) -> dict[str, Any]:
    """What must be the same of a model that was kept: everything but where it came from."""
    return {key: value for key, value in numbers(record).items() if key not in ("model", "config")}


@pytest.fixture
def sweeps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many recipes each calibration served."""
    counts: list[int] = []

    class Counted(workbench.Calibration):
        def __init__(self, *arguments: Any) -> None:
            counts.append(len(arguments[1]))
            super().__init__(*arguments)

    monkeypatch.setattr(workbench, "Calibration", Counted)
    return counts


def test_a_sweep_calibrates_once_and_records_each_alpha(
    tmp_path: Path, sweeps: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Three experiments, with the numbers that each would have alone; with GPTQ too."""
    _, words = write_inputs(tmp_path)
    options = ["--observer", "exact", "--w_bits", "4", "--apply_gptq", "--quantize_lm_head"]
    assert run([*words, *options], tmp_path / "sweep", "--percentile_alpha", ",".join(ALPHAS)) == 0
    assert sweeps == [3]
    output = capsys.readouterr()
    assert "experiment 2 of 3: percentile_alpha 1.0" in output.err
    assert [f"Recorded         number {i}" in output.out for i in range(3)] == [True] * 3
    for alpha in ALPHAS:
        assert run([*words, *options], tmp_path / "alone", "--percentile_alpha", alpha) == 0
    together, alone = records(tmp_path / "sweep"), records(tmp_path / "alone")
    assert [record["config"]["percentile_alpha"] for record in together] == [0.99, 1.0, None]
    assert [numbers(record) for record in together] == [numbers(record) for record in alone]
    first, second, _ = together
    assert first["activation_stats"] != second["activation_stats"]
    assert len({record["experiment_id"] for record in together}) == 3


def test_the_alpha_that_was_found_is_recorded_for_each_tensor(tmp_path: Path) -> None:
    """`auto` chooses for each tensor apart, and no choice loses more than any fixed alpha that it chose from."""
    _, words = write_inputs(tmp_path)
    assert run([*words, "--observer", "exact"], tmp_path, "--percentile_alpha", "auto,0.999,0.99999,1.0") == 0
    auto, *fixed = records(tmp_path)
    assert auto["config"]["alpha_search"] == "auto"
    assert auto["config"]["percentile_alpha"] is None
    chosen = auto["calibration"]["percentile_alphas"]
    names = {f"layer_{i}.{op}" for i in (0, 1) for op in ("x_proj:input", "ssm_state_act:input")}
    assert set(chosen) == names
    for name in names:
        tensor = auto["activation_stats"][name]
        assert tensor["percentile_alpha"] == chosen[name]
        assert tensor["sqnr_db"] >= max(record["activation_stats"][name]["sqnr_db"] for record in fixed) - 1e-9


def test_a_kept_model_is_used_again(tmp_path: Path, sweeps: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    """The same command again calibrates nothing and gives the same numbers; another recipe makes its own model."""
    _, words = write_inputs(tmp_path)
    words = [*words, "--pretrained_dir", str(tmp_path / "kept"), "--output_subdir", "some/where"]
    assert [run(words, tmp_path) for _ in range(2)] == [0, 0]
    assert run(words, tmp_path, "--percentile_alpha", "0.999") == 0
    assert len(sweeps) == 2
    made, used, other = records(tmp_path)
    folder = tmp_path / "kept" / "some" / "where"
    assert len(list(folder.iterdir())) == 2
    assert made["artifact"] == {**used["artifact"], "reused": False}
    assert used["artifact"]["reused"] is True
    assert Path(used["artifact"]["path"]).parent == folder
    assert other["artifact"]["path"] != used["artifact"]["path"]
    assert stripped(made) == stripped(used)
    assert made["model_size_bytes"] == used["model_size_bytes"]
    assert "used again: " in capsys.readouterr().out


def test_a_saved_model_is_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is evaluated with the scores it was saved with, recorded with its bits, and not quantized twice."""
    _, words = write_inputs(tmp_path)
    assert run(words, tmp_path, "--pretrained_dir", str(tmp_path / "kept"), "--w_bits", "4") == 0
    (saved,) = (tmp_path / "kept").iterdir()
    evaluate = ["run", str(saved), "--eval_ppl", "--ppl_dataset", str(tmp_path / "text.txt")]
    assert run(evaluate, tmp_path) == 0
    made, loaded = records(tmp_path)
    assert loaded["results"] == made["results"]
    assert (loaded["config"]["w_bits"], loaded["config"]["a_bits"], loaded["config"]["stored"]) == (4, 8, True)
    assert loaded["model"]["base_model"]["digest"] == made["model"]["digest"]
    assert loaded["model"]["digest"] == made["artifact"]["digest"]
    capsys.readouterr()
    assert run([*evaluate, "--quantize"], tmp_path) == 2
    assert "is quantized already" in capsys.readouterr().err
    assert len(records(tmp_path)) == 2


def test_a_model_that_cannot_be_kept_is_said_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file in the directory's place: one line, exit code 2, nothing recorded."""
    _, words = write_inputs(tmp_path)
    (tmp_path / "file").write_text("")
    assert run(words, tmp_path, "--pretrained_dir", str(tmp_path / "file" / "below")) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "is no directory that can be written" in error
    assert not records(tmp_path)
