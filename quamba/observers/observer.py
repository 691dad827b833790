"""What is kept of one watched tensor during the calibration sweep, and what it amounts to in the end.

Every statistic is one of documents, in their order, so that it does not depend on how they were batched. One observer
serves any number of ways to clip: a sweep is made once, whatever is asked of it afterwards.
"""

from collections.abc import Collection

import torch
from torch import Tensor

from quamba.observers.channel_tail import ChannelTail
from quamba.observers.clipping import Clipping
from quamba.observers.documents import Documents
from quamba.observers.sample import Sample
from quamba.observers.series import Series
from quamba.observers.tail import Rank, Tail, largest
from quamba.reports import ValueRange

EMA_SIGMA = 0.01
# Where nothing but zeros was seen, the clipping interval is this.
_MIN_CLIP = 1e-5
# The share of elements beyond an ema's clip is (1 - alpha) on average over documents; this many times it are kept, so
# that they can be counted where documents differ.
_TAIL_MARGIN = 4


class Observer:
    """Watches one tensor, as a part of a `Station`.

    Args:
        clippings: the ways to clip that will be asked for.
        total: rows (tokens, or states) that the whole calibration will bring.
        documents: how many there will be.
        detailed: also keep what a report needs: moments, a sample, how much is clipped.
        grouped: also keep what head reordering sorts by (`profile`), and for exact clippings the quantiles of any
            groups of channels.
    """

    def __init__(
        self,
        clippings: Collection[Clipping],
        total: int,
        documents: int,
        detailed: bool,
        grouped: bool = False,
    ) -> None:
        self.clippings = frozenset(clippings)
        self.detailed = detailed
        self.count = 0
        self._total = total
        percentiles = sorted(clipping for clipping in self.clippings if clipping.clips)
        self._exact = [clipping.percentile_alpha for clipping in percentiles if clipping.kind == "exact"]
        averaged = [clipping.percentile_alpha for clipping in percentiles if clipping.kind == "ema"]
        self._quantiles = {alpha: Series(documents) for alpha in averaged}
        self._counted = averaged if detailed else []
        self._tail: Tail | None = None
        self._extremes: tuple[Tensor, Tensor] | None = None
        self._before: ValueRange | None = None
        self._sums, self._squares = Series(documents), Series(documents)
        self.sample = Sample(documents) if detailed else None
        self._grouped = grouped
        self._profile: Tensor | None = None
        tailed = grouped and bool(self._exact)
        self.channel_tail = ChannelTail(min(self._exact), total) if tailed else None

    def update(self, documents: Documents) -> None:
        """Keep what is asked for beside the extremes; looks at a stack of documents without a copy of it."""
        self.count += documents.values.numel()
        if self._quantiles:
            _, tokens, channels = documents.shape
            ranks = {alpha: Rank.of(alpha, tokens * channels) for alpha in self._quantiles}
            top = largest(documents, max(rank.tail for rank in ranks.values()))
            for alpha, rank in ranks.items():
                self._quantiles[alpha].append(rank.value(top))
        self.update_rest(documents)

    def update_rest(self, documents: Documents, *, tail: bool = True) -> None:
        """Keep what is asked for beside count, extremes and quantiles of documents; without the tail if it is so."""
        if tail and (self._exact or self._counted):
            d, tokens, channels = documents.shape
            self.tail_of(d * tokens, channels).update(documents)
        if self.sample is not None:
            self._update_details(self.sample, documents)
        if self.channel_tail is not None:
            self.channel_tail.update(documents)
        if self._grouped:
            profile = documents.values.abs().mean(dim=1).amax(dim=0)
            self._profile = profile if self._profile is None else torch.maximum(self._profile, profile)

    def set_extremes(self, low: Tensor, high: Tensor) -> None:
        """The smallest and the largest values of the channels, float32 [C]; a `Station` keeps them up to date."""
        self._extremes = low, high

    def set_before(self, before: ValueRange) -> None:
        """The extremes of all channels together, where they are known already."""
        self._before = before

    def set_quantiles(self, alpha: float, values: Tensor) -> None:
        """The quantile of |x| at one of `alphas` in each document, float32 [documents], where others have found it."""
        self._quantiles[alpha].replace(values)

    @property
    def alphas(self) -> tuple[float, ...]:
        """The quantiles that are taken of each document, ascending."""
        return tuple(sorted(self._quantiles))

    @property
    def needs_values(self) -> bool:
        """Whether more is kept than the extremes."""
        return bool(self._quantiles) or self.needs_rest

    @property
    def counts_clipped(self) -> bool:
        """Whether a tail is kept to count what an ema clips, and for nothing else."""
        return bool(self._counted) and not self._exact

    @property
    def needs_rest(self) -> bool:
        """Whether more is kept than the extremes and quantiles of documents."""
        return bool(self._exact or self.detailed or self._grouped)

    def _update_details(self, sample: Sample, documents: Documents) -> None:
        sample.update(documents)
        self._sums.append(documents.sums())
        self._squares.append(documents.squares())

    def tail_of(self, rows: int, channels: int) -> Tail:
        """The tail; made when it is first asked for, for at least so many rows.

        Large enough for every exact quantile; where only an ema's clipped elements are counted, for about these.
        """
        if self._tail is None:
            expected = max(self._total, rows) * channels
            counted = max((_TAIL_MARGIN * (1.0 - alpha) for alpha in self._counted), default=0.0)
            size = max(Rank.of(alpha, expected).tail + 1 for alpha in [*self._exact, 1.0 - min(1.0, counted)])
            self._tail = Tail(min(expected, size), share=None if self._exact else counted)
        return self._tail

    def column_extremes(self) -> tuple[Tensor, Tensor]:
        """The smallest and the largest value of each channel (of a state: of each of its elements), float32 [C].

        Raises:
            ValueError: nothing was seen.
        """
        if self._extremes is None:
            raise ValueError("the observer has seen nothing: no calibration documents?")
        return self._extremes

    def profile(self) -> Tensor:
        """a_c, the maximum over documents of the mean over tokens of |x|, of each channel: float32 [C].

        Raises:
            ValueError: nothing was seen, or the observer was not `grouped`.
        """
        if self._profile is None:
            raise ValueError("no profile was asked for before the sweep, or nothing was seen")
        return self._profile

    def column_absmax(self) -> Tensor:
        """The largest absolute value of each channel, float32 [C]."""
        low, high = self.column_extremes()
        return torch.maximum(high, -low)

    def before(self) -> ValueRange:
        """The true signed extremes.

        Raises:
            ValueError: nothing was seen.
        """
        if self._before is not None:
            return self._before
        low, high = self.column_extremes()
        return ValueRange(min=float(low.min()), max=float(high.max()))

    def clip(self, clipping: Clipping) -> float:
        """The end of the clipping interval [-clip, clip], at least 1e-5.

        Raises:
            ValueError: nothing was seen, or the observer was not told of this clipping.
        """
        if clipping not in self.clippings:
            raise ValueError(f"{clipping} was not asked for before the sweep")
        extremes = self.before()
        if not clipping.clips:
            return max(-extremes.min, extremes.max, _MIN_CLIP)
        if clipping.kind == "ema":
            return max(_moving_average(self._quantiles[clipping.percentile_alpha].values()), _MIN_CLIP)
        if self._tail is None:
            raise ValueError("the observer has seen nothing: no calibration documents?")
        rank = Rank.of(clipping.percentile_alpha, self.count)
        return max(float(rank.value(self._tail.descending(rank.tail))), _MIN_CLIP)

    def above(self, clip: float) -> Tensor | None:
        """The absolute values above `clip`, all of them; None where they were not kept that far down."""
        if clip >= max(-self.before().min, self.before().max):
            return torch.empty(0)
        return None if self._tail is None else self._tail.above(clip)

    def moments(self) -> tuple[float, float]:
        """The mean and the mean square over all elements, of a detailed observer."""
        sums, squares = self._sums.values().double().sum(), self._squares.values().double().sum()
        return float(sums) / self.count, float(squares) / self.count


def _moving_average(quantiles: Tensor) -> float:
    first, *rest = quantiles.tolist()
    average = float(first)
    for quantile in rest:
        average += EMA_SIGMA * (quantile - average)
    return average


__all__ = ["EMA_SIGMA", "Observer"]
