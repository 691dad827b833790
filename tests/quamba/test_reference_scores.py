"""Unquantized models give the figures that other implementations measured: mamba-ssm on a GPU, transformers on a CPU.

Accuracy within 0.1 point, perplexity within 0.5 %.
"""

from pathlib import Path

import pytest

from quamba.corpora import assets_folder
from quamba.evals import evaluate_tasks, perplexity
from quamba.models.loading import load_model
from quamba.reports import PerplexityReport, TaskReport

SHIPPED = Path(__file__).parents[2] / "models"
# LAMBADA accuracy, LAMBADA perplexity, WikiText-2 perplexity.
MAMBA_SSM = {
    "mamba-2m": (0.0429, 9899.7, 119.50),
    "mamba2-4m": (0.0633, 3751.2, 111.42),
    "mamba-29m": (0.0899, 1561.4, 84.52),
    "mamba2-30m": (0.1335, 340.8, 62.23),
}


def model_directory(name: str) -> Path:
    assets = assets_folder()
    folders = [SHIPPED, *([] if assets is None else [assets / "models"])]
    found = next((folder / name for folder in folders if (folder / name / "config.json").is_file()), None)
    return found or pytest.skip(f"{name} is in none of {', '.join(map(str, folders))}: set QLOG_ASSETS")


def check_task(name: str, task: str, limit: int | None, accuracy: float, ppl: float) -> None:
    loaded = load_model(str(model_directory(name)))
    reports = evaluate_tasks(loaded, [task], limit=limit, batch_size=64)
    [report] = [report for report in reports if isinstance(report, TaskReport)]
    metrics = {metric.name: metric.value for metric in report.metrics}
    assert metrics["acc"] == pytest.approx(accuracy, abs=0.001)
    assert metrics["perplexity"] == pytest.approx(ppl, rel=0.005)


@pytest.mark.parametrize(("name", "accuracy", "ppl"), [("mamba-2m", 0.1771, 787.68), ("mamba2-4m", 0.1875, 429.85)])
def test_the_first_cloze_passages(name: str, accuracy: float, ppl: float) -> None:
    """The last word of the first 192 passages, as transformers scores it."""
    check_task(name, "gutenberg_cloze", 192, accuracy, ppl)


@pytest.mark.long
@pytest.mark.parametrize(("name", "accuracy", "ppl"), [("mamba-2m", 0.174, 549.30), ("mamba2-4m", 0.188, 345.14)])
def test_all_cloze_passages(name: str, accuracy: float, ppl: float) -> None:
    """The last word of all 1000 passages, as transformers scores it."""
    check_task(name, "gutenberg_cloze", None, accuracy, ppl)


@pytest.mark.long
@pytest.mark.assets
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", list(MAMBA_SSM))
def test_lambada(name: str) -> None:
    """All of LAMBADA, as mamba-ssm scores it."""
    assets = assets_folder()
    if assets is None or not (assets / "data" / "lambada" / "lambada_test.jsonl").is_file():
        pytest.skip("LAMBADA is not there: set QLOG_ASSETS to the folder that holds data/lambada/lambada_test.jsonl")
    accuracy, ppl, _ = MAMBA_SSM[name]
    check_task(name, "lambada_local", None, accuracy, ppl)


@pytest.mark.long
@pytest.mark.assets
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", list(MAMBA_SSM))
def test_wikitext(name: str) -> None:
    """WikiText-2's test text as it is, in windows of 2048 tokens, as mamba-ssm scores it."""
    assets = assets_folder()
    if assets is None or not (assets / "data" / "wikitext-2" / "wiki.test.raw").is_file():
        pytest.skip("WikiText-2 is not there: set QLOG_ASSETS to the folder that holds data/wikitext-2/wiki.test.raw")
    report = list(perplexity(load_model(str(model_directory(name))), "wikitext2", batch_size=2))[-1]
    assert isinstance(report, PerplexityReport)
    assert report.perplexity == pytest.approx(MAMBA_SSM[name][2], rel=0.005)
