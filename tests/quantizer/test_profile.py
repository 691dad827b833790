"""`quantizer profile`: measurements that are printed and recorded, or one line that says what is wrong."""

import json
from pathlib import Path

import pytest

from quantizer.entry import run_command
from tests.quamba.checkpoints import small_config, write_checkpoint
from tests.quantizer.runs import records

SMALL = ["--batch_size", "2", "--prompt_len", "5", "--gen_len", "3", "--repeats", "2", "--device", "cpu"]


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(write_checkpoint(tmp_path / "model", small_config("mamba2", n_layer=1)))


@pytest.mark.parametrize(
    "quantize",
    [
        [],
        ["--quantize", "--quantize_embedding", "--quantize_lm_head"],
        ["--quantize", "--w_bits", "4", "--a_bits", "16"],
    ],
)
def test_what_is_measured_is_printed_and_recorded(
    quantize: list[str], model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All four by default: each time once, the sizes, and what was asked for; a quantized model is smaller."""
    words = ["--log_dir", str(tmp_path), "profile", model, *SMALL, *quantize, "--format", "json"]
    assert run_command(words) == 0
    printed = json.loads(capsys.readouterr().out)
    (record,) = records(tmp_path)
    assert record["status"] == "COMPLETED"
    assert record["experiment_id"] == printed["experiment_id"]
    assert record["config"]["batch_size"] == 2
    assert record["config"]["cache_graph"] is False
    assert record["config"]["quantize_embedding"] == ("--quantize_embedding" in quantize)
    assert record["config"]["profile"] == ["ttft", "tpot", "ttlt", "size"]
    tasks = record["results"]["tasks"]
    for name in ("ttft", "tpot", "ttlt"):
        times = printed[name]["times_ms"]
        assert len(times) == tasks[f"profile_{name}"]["n"] == 2
        assert tasks[f"profile_{name}"]["median_ms"] == printed[name]["median_ms"] > 0
    assert tasks["profile_size"]["weights_bytes"] == printed["weights_bytes"] == record["model_size_bytes"]["after"]
    if quantize:
        assert record["model_size_bytes"]["after"] < record["model_size_bytes"]["before"]
    assert printed["notes"]


def test_a_part_is_measured_alone(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only what was asked for; and no graphs are promised on a CPU."""
    assert run_command(["profile", model, *SMALL, "--tpot", "--cache_graph", "--log_dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "time per output token" in printed
    assert "time to first token" not in printed
    assert "no CUDA graphs on a CPU" in printed
    assert list(records(tmp_path)[0]["results"]["tasks"]) == ["profile_tpot"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give a MODEL or a --shape"),
        (["nosuch"], "nosuch"),
        (["--shape", "mamba3-1b"], "mamba2-2.7b"),
        (["--shape", "mamba-130m", "--gen_len", "0"], "gen_len must be at least 1"),
        (["--shape", "mamba-130m", "--device", "cuda:77"], "cuda:77"),
        (["--shape", "mamba-130m", "--quantize", "--a_bits", "16"], "W8A16"),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is measured or recorded as done."""
    assert run_command(["profile", *words, "--log_dir", str(tmp_path)]) in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_a_saved_quantized_model_is_measured_as_what_it_is(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its record has its own bits; to quantize it again, or to run it in another type, is refused."""
    made = ["run", model, "--quantize", "--w_bits", "4", "--calib_data", "builtin", "--calib_data_num", "1"]
    made += ["--calib_seqlen", "8", "--pretrained_dir", str(tmp_path), "--output_subdir", "kept", "--device", "cpu"]
    assert run_command([*made, "--log_dir", str(tmp_path / "made")]) == 0
    (kept,) = map(str, (tmp_path / "kept").iterdir())
    assert run_command(["profile", kept, *SMALL, "--tpot", "--log_dir", str(tmp_path)]) == 0
    (record,) = records(tmp_path)
    assert (record["config"]["w_bits"], record["config"]["a_bits"]) == (4, 8)
    assert (record["config"]["quantize"], record["config"]["stored"], record["config"]["dtype"]) == (False, True, None)
    for words in (["--quantize"], ["--dtype", "float16"]):
        capsys.readouterr()
        assert run_command(["profile", kept, *SMALL, *words, "--log_dir", str(tmp_path)]) == 2
        assert "is quantized already" in capsys.readouterr().err


def test_products_in_half_precision_are_recorded(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And refused where they would be somebody else's."""
    assert run_command(["profile", model, *SMALL, "--ttft", "--dtype", "bfloat16", "--log_dir", str(tmp_path)]) == 0
    assert records(tmp_path)[0]["config"]["dtype"] == "bfloat16"
    words = ["profile", model, *SMALL, "--quantize", "--dtype", "bfloat16", "--log_dir", str(tmp_path)]
    capsys.readouterr()
    assert run_command(words) == 2
    assert "--dtype bfloat16" in capsys.readouterr().err
