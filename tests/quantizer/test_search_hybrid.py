"""`quantizer search-hybrid`: a file that `quantizer run` takes, or one line that says what is wrong."""

import json
from pathlib import Path

import pytest

from quantizer.entry import run_command
from tests.quamba.checkpoints import small_config, write_checkpoint
from tests.quantizer.runs import TEXT, records, run


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A command line on a tiny Mamba-2 model."""
    model = write_checkpoint(tmp_path / "model", small_config("mamba2", n_layer=4))
    lines = [json.dumps({"text": TEXT[i : i + 400]}) for i in range(6)]
    (tmp_path / "text.jsonl").write_text("\n".join(lines), encoding="utf-8")
    data = ["--calib_data", str(tmp_path / "text.jsonl"), "--calib_data_num", "4", "--calib_seqlen", "32"]
    return ["search-hybrid", str(model), *data, "--group_heads", "--output", str(tmp_path / "hybrid.json")]


def test_the_proposal_is_a_configuration_for_a_run(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The share of layers that was asked for keeps float activations; the run records the choice."""
    assert run_command([*words, "--share", "0.5", "--format", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    hybrid = json.loads((tmp_path / "hybrid.json").read_text())
    assert hybrid == [row["scheme"] for row in printed["layers"]]
    assert sorted(hybrid) == ["W4A16", "W4A16", "W4A8", "W4A8"]
    spared = {row["divergence"] for row in printed["layers"] if row["scheme"] == "W4A16"}
    assert min(spared) >= max(row["divergence"] for row in printed["layers"] if row["scheme"] == "W4A8")
    options = ["--preset", "quamba2-w4ax", "--hybrid_blocks_config", str(tmp_path / "hybrid.json")]
    data = ["--calib_data", str(tmp_path / "text.jsonl"), "--calib_seqlen", "32", "--testing"]
    assert run(["run", words[1], *options, *data], tmp_path) == 0
    assert records(tmp_path)[0]["config"]["hybrid_blocks"] == hybrid


def test_a_file_that_is_there_is_replaced_only_when_asked(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before any work; nothing else is left beside it."""
    (tmp_path / "hybrid.json").write_text("mine")
    assert run_command(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "hybrid.json").read_text() == "mine"
    before = sorted(path.name for path in tmp_path.iterdir())
    assert run_command([*words, "--overwrite", "--share", "0"]) == 0
    assert json.loads((tmp_path / "hybrid.json").read_text()) == ["W4A8"] * 4
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    printed = capsys.readouterr().out
    assert "0 of 4 layers keep float activations" in printed
    assert f"--hybrid_blocks_config {tmp_path / 'hybrid.json'}" in printed


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--share", "1.5"], "share must be between 0 and 1"),
        (["--share", "nan"], "share must be between 0 and 1"),
        (["--calib_data_num", "0"], "calib_data_num must be at least 1"),
        (["--calib_data", "nosuch.txt"], "nosuch.txt"),
        (["--device", "cuda:77"], "cuda:77"),
        (["--output", "no/such/directory/hybrid.json"], "is no directory"),
        (["--rotation", "some"], "rotation"),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    more: list[str], message: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and nothing is written."""
    assert run_command([*words, *more]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1 or error.startswith("Usage")


def test_a_model_without_heads_cannot_group_them(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reason, not a traceback."""
    model = write_checkpoint(tmp_path / "other", small_config("mamba1"))
    assert run_command([words[0], str(model), *words[2:]]) == 2
    assert "Mamba-1 has no heads" in capsys.readouterr().err
    assert not (tmp_path / "hybrid.json").exists()
