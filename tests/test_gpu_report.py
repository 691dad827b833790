"""The tables of GPU results: every line stands in one, under its GPU; results know the commit that they are of."""

from typing import Any

import pytest

from tests.bench.gpu_report import tables
from tests.bench.gpu_timing import COMMIT_VARIABLE, commit


def line(case: str, gpu: str = "NVIDIA H100 80GB HBM3", **values: Any) -> dict[str, Any]:
    common = {"gpu": gpu, "torch": "2.11.0", "triton": "3.6.0", "copy_tb_s": 3.02, "int8_tops": 1400, "commit": "abc"}
    return {"case": case, "ours_ms": None, "baseline_ms": None, "ratio": None, "sqnr_db": None} | common | values


TIMED = {"ours_ms": 1.25, "baseline_ms": 2.5, "ratio": 2.0, "sqnr_db": 200.0, "bandwidth_share": 0.7}


def test_gpus_stand_side_by_side() -> None:
    """A case is one row, with the columns of each GPU, empty where one was not measured."""
    lines = [line("decode", **TIMED), line("prefill", **TIMED), line("decode", gpu="NVIDIA H200", **TIMED)]
    shown = tables(lines)
    assert "| case | H100: ours, ms |" in shown
    assert " H200: ours, ms | H200: baseline, ms | H200: ratio |" in shown
    assert "| decode | 1.25 | 2.5 | 2.00 | 0.70 | exact | 1.25 | 2.5 | 2.00 | 0.70 | exact |" in shown
    assert "| prefill | 1.25 | 2.5 | 2.00 | 0.70 | exact |  |  |  |  |  |" in shown


def test_times_sizes_and_scores_are_tables_of_their_own() -> None:
    """Each kind of line has its columns; those that nobody fills are left out."""
    sizes = {"ours_bytes": 525, "baseline_bytes": 1000, "ratio": 0.525, "least_ratio": 0.5}
    scores = {"lambada_accuracy": 0.5, "lambada_perplexity": 9.0, "cloze_accuracy": 0.25, "wikitext2_perplexity": 8.0}
    shown = tables([line("decode", **TIMED), line("weights", **sizes), line("scores", **scores, cloze_points=-0.1)])
    assert "| weights | 0.0 | 0.0 | 0.5250 | 0.5000 |" in shown
    assert "| scores | 50.00 | 9.0 | 25.00 | -0.10 | 8.00 |" in shown
    assert [row.split(" |")[0] for row in shown.splitlines() if row.startswith("| ")] == [
        *("| case", "| decode", "| case", "| weights", "| case", "| scores")
    ]
    assert "of int8 rate" not in shown


def test_the_environment_names_the_commit_of_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where files were copied git would name another commit, or none."""
    monkeypatch.setenv(COMMIT_VARIABLE, "fab0123")
    assert commit() == "fab0123"
    monkeypatch.delenv(COMMIT_VARIABLE)
    monkeypatch.setenv("PATH", "")
    assert commit() == "unknown"
