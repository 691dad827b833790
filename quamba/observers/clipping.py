"""How a clipping interval is chosen: the observer's kind with its percentile, as a value."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from quamba.errors import RecipeError

ObserverKind = Literal["ema", "exact", "minmax"]


@dataclass(frozen=True, slots=True, order=True)
class Clipping:
    """One way to choose the end of a clipping interval [-c, c].

        minmax      the absolute maximum over everything seen
        exact       the quantile of |x| over all values of the whole calibration
        ema         m <- quantile of |x| in the first document; m <- m + sigma (quantile - m) for every further one:
                    the papers' way (Quamba, arXiv 2410.13229)

    Attributes:
        kind: as above.
        percentile_alpha: in (0, 1]; 1.0 is the absolute maximum in every kind.

    Raises:
        RecipeError: a value that cannot be.
    """

    kind: ObserverKind
    percentile_alpha: float

    def __post_init__(self) -> None:
        if self.kind not in get_args(ObserverKind):
            raise RecipeError(f"observer must be one of {', '.join(get_args(ObserverKind))}, not {self.kind!r}")
        alpha = self.percentile_alpha
        if not (math.isfinite(alpha) and 0.0 < alpha <= 1.0):
            raise RecipeError(f"percentile_alpha must be in (0, 1], not {alpha}; 1.0 clips nothing")
        if self.kind == "minmax" and alpha != 1.0:
            raise RecipeError(f"the minmax observer clips nothing: percentile_alpha must be 1.0, not {alpha}")

    @property
    def clips(self) -> bool:
        """Whether a percentile is taken at all."""
        return self.percentile_alpha < 1.0


MINMAX = Clipping("minmax", 1.0)

__all__ = ["MINMAX", "Clipping", "ObserverKind"]
