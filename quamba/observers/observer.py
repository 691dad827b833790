"""What is kept of one watched tensor during the calibration sweep, and what it amounts to in the end.

    minmax      the absolute maximum over everything seen
    exact       the quantile of |x| over all values of the whole calibration
    ema         m <- quantile of |x| in the first document; m <- m + sigma (quantile - m) for every further one: the
                papers' way (Quamba, arXiv 2410.13229)

Every statistic is one of documents, in their order, so that it does not depend on how they were batched.
"""

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from quamba.observers.sample import Sample
from quamba.observers.series import Series
from quamba.observers.tail import Rank, Tail, largest
from quamba.qtypes import QMAX, QMIN, scale_of
from quamba.reports import LayerReport, ValueRange

ObserverKind = Literal["ema", "exact", "minmax"]

EMA_SIGMA = 0.01
# Where nothing but zeros was seen, the clipping interval is this.
_MIN_CLIP = 1e-5
# The share of elements beyond an ema's clip is (1 - alpha) on average over documents; this many times it are kept, so
# that they can be counted where documents differ.
_TAIL_MARGIN = 4


class Observer:
    """Watches one tensor.

    Args:
        kind: how the clipping interval is chosen.
        percentile_alpha: in (0, 1]; 1.0 is the absolute maximum in every kind.
        total: rows (tokens, or states) that the whole calibration will bring.
        documents: how many there will be.
        detailed: also keep what a report needs: moments, a sample, how much is clipped.
    """

    def __init__(self, kind: ObserverKind, percentile_alpha: float, total: int, documents: int, detailed: bool) -> None:
        self.kind: ObserverKind = kind
        self.percentile_alpha = 1.0 if kind == "minmax" else percentile_alpha
        self.count = 0
        self._total = total
        self._minima, self._maxima = Series(documents), Series(documents)
        self._quantiles, self._sums, self._norms = Series(documents), Series(documents), Series(documents)
        self._tail: Tail | None = None
        self._sample = Sample(documents) if detailed else None

    def update(self, values: Tensor, counts: Tensor | None) -> None:
        """Look at one batch once, without a copy of it.

        Args:
            values: float32 [Bt, T, ...].
            counts: int64 [Bt], how many of each row's T entries are real; None: all.
        """
        for documents in _documents(values, counts):
            if self._sample is not None:
                # Several passes follow: over a part of a wider tensor each would cost what a copy does.
                documents = documents.contiguous()
            self.count += documents.numel()
            extremes = torch.aminmax(documents)
            self._minima.append(extremes.min)
            self._maxima.append(extremes.max)
            if self.percentile_alpha < 1.0:
                self._update_percentile(documents)
            if self._sample is not None:
                self._sample.update(documents)
                self._sums.append(documents.sum(dim=(1, 2)))
                self._norms.append(torch.linalg.vector_norm(documents, dim=(1, 2)))

    def _update_percentile(self, documents: Tensor) -> None:
        d, rows, channels = documents.shape
        if self.kind == "ema":
            rank = Rank.of(self.percentile_alpha, rows * channels)
            self._quantiles.append(rank.value(largest(documents, rank.tail)))
        if self.kind == "exact" or self._sample is not None:
            if self._tail is None:
                expected = max(self._total, d * rows) * channels
                needed = Rank.of(self.percentile_alpha, expected).tail
                margin = _TAIL_MARGIN if self.kind == "ema" else 1
                self._tail = Tail(min(expected, margin * needed + 1))
            self._tail.update(documents)

    def before(self) -> ValueRange:
        """The true signed extremes.

        Raises:
            ValueError: nothing was seen.
        """
        if not len(self._minima):
            raise ValueError("the observer has seen nothing: no calibration documents?")
        low, high = self._minima.values().min(), self._maxima.values().max()
        return ValueRange(min=float(low), max=float(high))

    def clip(self) -> float:
        """The end of the clipping interval [-clip, clip], at least 1e-5."""
        extremes = self.before()
        absmax = max(-extremes.min, extremes.max)
        if self.percentile_alpha == 1.0:
            return max(absmax, _MIN_CLIP)
        if self.kind == "ema":
            return max(_moving_average(self._quantiles.values()), _MIN_CLIP)
        if self._tail is None:
            raise ValueError("the observer has seen nothing: no calibration documents?")
        rank = Rank.of(self.percentile_alpha, self.count)
        return max(float(rank.value(self._tail.descending(rank.tail))), _MIN_CLIP)

    def report(self, name: str, bits: int = 8) -> LayerReport:
        """All statistics of the tensor.

        Raises:
            ValueError: the observer was not `detailed`, or has seen nothing.
        """
        if self._sample is None:
            raise ValueError(f"{name}: only a detailed observer can be reported")
        before, clip = self.before(), self.clip()
        sample = self._sample.values()
        scale = scale_of(clip)
        codes = (sample / scale).round_().clamp_(QMIN, QMAX)
        mean = float(self._sums.values().double().sum()) / self.count
        square = float(self._norms.values().double().square().sum()) / self.count
        clipped, noise = self._losses(clip, sample, codes * scale)
        return LayerReport(
            name=name,
            before=before,
            after=before.inside(clip),
            percentile_alpha=self.percentile_alpha,
            clipped_ratio=1.0 - self.percentile_alpha,
            measured_clipped_ratio=clipped,
            count=self.count,
            absmax=max(-before.min, before.max),
            scale=float(scale),
            bits=bits,
            observer=self.kind,
            mean=mean,
            std=max(0.0, square - mean * mean) ** 0.5,
            median=float(sample.median()),
            p99=float(torch.quantile(sample[: 1 << 24], 0.99)),
            sqnr_db=decibels(square, noise),
            saturated_ratio=float(((codes <= QMIN) | (codes >= QMAX)).float().mean()),
        )

    def _losses(self, clip: float, sample: Tensor, approximation: Tensor) -> tuple[float, float]:
        """The share of elements beyond the clip, and the mean square error of quantization.

        What is clipped is counted and its error summed exactly, from the tail; rounding errors are alike everywhere and
        come from the sample.
        """
        squares = (sample - approximation).double().square()
        if self.percentile_alpha == 1.0 or self._tail is None:
            return 0.0, float(squares.mean())
        above = self._tail.above(clip)
        if above is None:
            # Documents so unlike each other that more than the margin is clipped: all from the sample.
            return float((sample.abs() > clip).double().mean()), float(squares.mean())
        share = above.numel() / self.count
        inside = squares[sample.abs() <= clip]
        rounding = float(inside.mean()) if inside.numel() else 0.0
        clipping = float((above - clip).double().square().sum()) / self.count
        return share, (1.0 - share) * rounding + clipping


def decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise): infinite where nothing is lost, NaN where there is no signal either."""
    if noise == 0.0:
        return math.inf if signal > 0.0 else math.nan
    return 10.0 * math.log10(signal / noise) if signal > 0.0 else -math.inf


def _moving_average(quantiles: Tensor) -> float:
    average: float | None = None
    for quantile in quantiles.tolist():
        average = quantile if average is None else average + EMA_SIGMA * (quantile - average)
    if average is None:
        raise ValueError("the observer has seen nothing: no calibration documents?")
    return average


def _documents(values: Tensor, counts: Tensor | None) -> Iterator[Tensor]:
    """The real entries as stacks [d, T, C] of documents of equal length, in order."""
    flat = values.flatten(2) if values.ndim > 3 else values
    if counts is None:
        yield flat
        return
    lengths = counts.tolist()
    start = 0
    while start < len(lengths):
        end = start + 1
        while end < len(lengths) and lengths[end] == lengths[start]:
            end += 1
        yield flat[start:end, : lengths[start]]
        start = end


__all__ = ["EMA_SIGMA", "Observer", "ObserverKind", "decibels"]
