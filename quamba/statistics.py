"""Statistics of the user's own: a registered function is measured on every recorded tensor, and goes where theirs go.

from quamba.statistics import WatchedTensor, statistic

@statistic
def kurtosis(tensor: WatchedTensor) -> float:
    return float(((tensor.sample - tensor.mean) / tensor.std).pow(4).mean())
"""

import importlib.util
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from torch import Tensor

from quamba.errors import StatisticError
from quamba.reports import LayerReport

_log = logging.getLogger(__name__)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
# What a record says of a tensor itself.
RESERVED = frozenset(
    (
        *(field.name for field in fields(LayerReport)),
        *("before_percentile", "after_percentile", "range_reduction", "other"),
        *("before_reorder", "after_reorder", "range_reduction_pct", "range_reduction_grouping_only_pct"),
        *("n_groups", "definition"),
    )
)


@dataclass(frozen=True, slots=True)
class WatchedTensor:
    """What is known of one tensor after the calibration.

    Attributes:
        name: as the record has it, "layer_0.x_proj:input".
        sample: float32 [n], 1024 elements of each document, at fixed places spread evenly over tokens and channels;
            all of a document that has fewer.
        count: elements seen.
        min, max, mean, std: over all elements.
        clip: the end of the clipping interval [-clip, clip]; of several groups' the widest.
        scale: clip / 127.
        bits: of the quantizer.
        percentile_alpha: the quantile that gave the clip.
    """

    name: str
    sample: Tensor
    count: int
    min: float
    max: float
    mean: float
    std: float
    clip: float
    scale: float
    bits: int
    percentile_alpha: float


Statistic = Callable[[WatchedTensor], float]


class _Registry:
    def __init__(self) -> None:
        self.functions: dict[str, Statistic] = {}
        self.complained: set[str] = set()

    def add(self, name: str, function: Statistic) -> None:
        if not _NAME.fullmatch(name):
            raise StatisticError(
                f"a statistic's name is a lower-case letter, then letters, digits and _, at most 64, not {name!r}"
            )
        if name in RESERVED:
            raise StatisticError(f"{name!r} is a statistic that every record has: give yours another name")
        earlier = self.functions.get(name)
        if earlier is not None and _origin(earlier) != _origin(function):
            raise StatisticError(f"two statistics are named {name!r}: give one of them another name")
        self.functions[name] = function


_registry = _Registry()


def statistic(function: Statistic) -> Statistic:
    """Register a function of a `WatchedTensor` under its own name; to be used as a decorator.

    One that raises, or returns no number, is recorded as NaN, and said once: an experiment does not suffer from it.

    Raises:
        StatisticError: the name is not free, or no name for a statistic.
    """
    _registry.add(getattr(function, "__name__", ""), function)
    return function


def registered() -> tuple[str, ...]:
    """The names, in the order of registration."""
    return tuple(_registry.functions)


def measure(tensor: WatchedTensor) -> dict[str, float]:
    """All registered statistics of a tensor."""
    return {name: _value(name, function, tensor) for name, function in _registry.functions.items()}


def _value(name: str, function: Statistic, tensor: WatchedTensor) -> float:
    try:
        return float(function(tensor))
    except Exception as error:  # noqa: BLE001 - whatever a user's function does, the experiment goes on
        if name not in _registry.complained:
            _registry.complained.add(name)
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            _log.warning("the statistic %s failed on %s (%s); NaN is recorded for it", name, tensor.name, reason)
        return float("nan")


def load_statistics(path: Path) -> None:
    """Run a Python file that registers statistics.

    Raises:
        StatisticError: it is not there, fails, or registers nothing.
    """
    spec = importlib.util.spec_from_file_location(f"_statistics_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise StatisticError(
            f"statistics {str(path)!r}: no Python file; give one that uses quamba.statistics.statistic"
        )
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except StatisticError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise StatisticError(f"statistics {str(path)!r} cannot be loaded: {reason}") from error
    if not any(_origin(function)[0] == module.__name__ for function in _registry.functions.values()):
        raise StatisticError(f"statistics {str(path)!r} registers none: decorate a function with @statistic")


@contextmanager
def isolated() -> Iterator[None]:
    """Within it the registry is empty, and what is registered is forgotten after it."""
    global _registry
    outer, _registry = _registry, _Registry()
    try:
        yield
    finally:
        _registry = outer


def _origin(function: Statistic) -> tuple[str, str]:
    """Module and name: a file that is run again replaces its own functions."""
    return str(getattr(function, "__module__", "")), str(getattr(function, "__qualname__", ""))


__all__ = [
    "RESERVED",
    "Statistic",
    "WatchedTensor",
    "isolated",
    "load_statistics",
    "measure",
    "registered",
    "statistic",
]
