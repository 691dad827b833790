"""Laws of perplexity: section 7.4's protocol, whatever the batches."""

import math
from pathlib import Path

import pytest

from quamba.errors import DataError
from quamba.evals import perplexity
from quamba.reports import PerplexityReport, ProgressReport
from tests.quamba.evals_fakes import Fake, log_probs_of

LOADED = Fake()
TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness."


@pytest.fixture
def text_file(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return str(path)


def measured(data_set: str, **options: int) -> PerplexityReport:
    report = list(perplexity(LOADED, data_set, **options))[-1]
    assert isinstance(report, PerplexityReport)
    return report


def naive(windows: list[list[int]]) -> float:
    losses = []
    for window in windows:
        table = log_probs_of(LOADED, window)
        losses.append(-sum(float(table[i, token]) for i, token in enumerate(window[1:])) / (len(window) - 1))
    return math.exp(sum(losses) / len(losses))


@pytest.mark.parametrize("batch_size", [1, 2, 50])
def test_it_is_the_naive_one_over_whole_windows(text_file: str, batch_size: int) -> None:
    """exp of the mean over windows of the mean over their targets; the tail is dropped; batches do not matter."""
    ids = LOADED.tokenizer.encode(TEXT)
    windows = [ids[start : start + 7] for start in range(0, len(ids) - 6, 7)]
    assert len(ids) % 7, "the text has to leave a tail"
    report = measured(text_file, batch_size=batch_size, window_tokens=7)
    assert (report.windows, report.window_tokens) == (len(windows), 7)
    assert report.perplexity == pytest.approx(naive(windows), rel=1e-5)


def test_max_windows_measures_the_first_ones(text_file: str) -> None:
    """Two windows are the first two."""
    ids = LOADED.tokenizer.encode(TEXT)
    report = measured(text_file, max_windows=2, window_tokens=5)
    assert report.windows == 2
    assert report.perplexity == pytest.approx(naive([ids[:5], ids[5:10]]), rel=1e-5)


def test_a_short_text_is_one_shorter_window(text_file: str, caplog: pytest.LogCaptureFixture) -> None:
    """The report has the tokens that the window really had, and a warning says so."""
    ids = LOADED.tokenizer.encode(TEXT)
    report = measured(text_file)
    assert (report.windows, report.window_tokens) == (1, len(ids))
    assert report.perplexity == pytest.approx(naive([ids]), rel=1e-5)
    assert f"{len(ids)} tokens" in caplog.text


def test_progress_counts_windows(text_file: str) -> None:
    """Progress goes up to the number of windows, before the report."""
    *progress, report = perplexity(LOADED, text_file, batch_size=2, max_windows=3, window_tokens=4)
    assert [(p.done, p.total) for p in progress if isinstance(p, ProgressReport)] == [(0, 0), (2, 3), (3, 3)]
    assert isinstance(report, PerplexityReport)


@pytest.mark.parametrize("text", ["", "a"])
def test_a_text_without_a_target_is_refused(tmp_path: Path, text: str) -> None:
    """Fewer than two tokens have no perplexity."""
    path = tmp_path / "short.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="at least 2"):
        list(perplexity(LOADED, str(path)))


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"window_tokens": 1}, {"max_windows": 0}])
def test_impossible_options_are_refused(text_file: str, options: dict[str, int]) -> None:
    """Sizes below the smallest ones that make sense."""
    with pytest.raises(DataError, match="must be at least"):
        list(perplexity(LOADED, text_file, **options))
