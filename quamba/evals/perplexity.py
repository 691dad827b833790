"""Perplexity over non-overlapping windows (specification of the recipe, section 7.4)."""

import logging
import math
from collections.abc import Iterator

import numpy as np
import torch

from quamba.corpora import perplexity_text
from quamba.errors import DataError
from quamba.evals.batching import Batching, Fetched, to_device
from quamba.evals.interface import Evaluable
from quamba.evals.scoring import target_log_probs
from quamba.reports import PerplexityReport, ProgressReport

WINDOW_TOKENS = 2048

_log = logging.getLogger(__name__)


def perplexity(
    loaded: Evaluable,
    data_set: str,
    *,
    batch_size: int | None = None,
    max_windows: int | None = None,
    window_tokens: int = WINDOW_TOKENS,
) -> Iterator[ProgressReport | PerplexityReport]:
    """Measure the perplexity of a text: exp of the mean over windows of the mean over a window's targets, in nats.

    The text is tokenised once, as a whole, and cut into windows that do not overlap; what is left over is dropped. A
    window of n tokens has n - 1 targets. A text shorter than one window is one shorter window.

    Args:
        loaded: the model.
        data_set: "wikitext2", "wikitext2_joined", "gutenberg" or a text file (see `quamba.corpora.perplexity_text`).
        batch_size: windows in one forward pass; None: what suits the device (`quamba.evals.batching`).
        max_windows: measure only the first ones.
        window_tokens: tokens of a window.

    Yields:
        Progress after each batch, at last the report, with the tokens that a window really had.

    Raises:
        DataError: the text cannot be read or has fewer than 2 tokens.
    """
    if (
        (batch_size is not None and batch_size < 1)
        or window_tokens < 2
        or (max_windows is not None and max_windows < 1)
    ):
        raise DataError(
            f"batch_size {batch_size}, window_tokens {window_tokens} and max_windows {max_windows} "
            "must be at least 1, 2 and 1"
        )
    phase = f"perplexity:{data_set}"
    yield ProgressReport(phase, 0, 0, "windows")
    windows = _windows(loaded.tokenizer.encode(perplexity_text(data_set)), data_set, window_tokens)[:max_windows]
    losses: list[float] = []
    batching = Batching(loaded.device, batch_size)
    start, running = 0, None
    while start < len(windows):
        batch = windows[start : start + batching.rows(windows.shape[1])]
        start += len(batch)
        # The next windows are under way before the last ones' losses are waited for.
        started = _start_pass(loaded, batch, batching)
        if running is not None:
            losses += _losses(running, windows.shape[1])
            yield ProgressReport(phase, len(losses), len(windows), "windows")
        running = started
    if running is not None:
        losses += _losses(running, windows.shape[1])
        yield ProgressReport(phase, len(losses), len(windows), "windows")
    yield PerplexityReport(
        data_set=data_set,
        perplexity=_exp(math.fsum(losses) / len(losses)),
        windows=len(windows),
        window_tokens=windows.shape[1],
    )


def _windows(ids: list[int], data_set: str, window_tokens: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Token ids [windows, tokens]."""
    if len(ids) < 2:
        raise DataError(f"{data_set!r} has {len(ids)} tokens: perplexity needs at least 2")
    if len(ids) < window_tokens:
        _log.warning(
            "%s has %d tokens, fewer than a window of %d: one shorter window", data_set, len(ids), window_tokens
        )
        window_tokens = len(ids)
    count = len(ids) // window_tokens
    return np.asarray(ids[: count * window_tokens], dtype=np.int64).reshape(count, window_tokens)


@torch.no_grad()
def _start_pass(
    loaded: Evaluable, windows: np.ndarray[tuple[int, int], np.dtype[np.int64]], batching: Batching
) -> Fetched:
    """Log probabilities of each window's tokens after its first, float32 [2, windows x (tokens - 1)]."""
    with batching.watched(windows.size):
        hidden = loaded.model.hidden_states(to_device(windows, loaded.device))[:, :-1].flatten(0, 1)
        positions = np.arange(len(hidden), dtype=np.int64)
        targets = np.ascontiguousarray(windows[:, 1:]).ravel()
        found = target_log_probs(loaded.model, hidden, positions, targets, loaded.tokenizer.vocab_size)
    return Fetched(found)


def _losses(found: Fetched, window_tokens: int) -> list[float]:
    """Mean negative log likelihood of each window's tokens after its first."""
    log_probs = found.numpy()[0].astype(np.float64).reshape(-1, window_tokens - 1)
    return [float(loss) for loss in -log_probs.mean(axis=1)]


def _exp(loss: float) -> float:
    """exp, infinite where it overflows (a broken model's loss may)."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


__all__ = ["WINDOW_TOKENS", "perplexity"]
