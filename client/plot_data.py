"""What a picture of experiments shows, before it is drawn: panels of series by layer, a row for each kind of tensor."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any

from client.columns import alpha_of, alpha_text, at, bits
from client.errors import NotFoundError
from client.labels import label
from client.text import as_text, escape
from client.values import Experiment

# More than these are not told apart by colour, or fit no page.
MAX_EXPERIMENTS, MAX_ROWS = 10, 40
_IN_LAYER = re.compile(r"layer_(\d{1,9})\.(.+)", re.ASCII | re.DOTALL)
_SHOWN_NAMES = 6


class Form(Enum):
    """How a series is drawn: intervals from low to high, values joined by lines, or a bar for each experiment."""

    INTERVALS = "intervals"
    VALUES = "values"
    BARS = "bars"


@dataclass(frozen=True, slots=True)
class Point:
    """A value at a place of the horizontal axis; `low` is 0 unless it is an interval."""

    place: int
    high: float
    low: float = 0.0


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one experiment. `experiment`: its place among those shown; `faint`: what it was before."""

    name: str
    experiment: int
    points: tuple[Point, ...]
    faint: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One diagram; `ticks`: the layers, or experiments, of the horizontal axis in their order."""

    title: str
    form: Form
    ticks: tuple[str, ...]
    series: tuple[Series, ...]
    axis: str = ""
    percent: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """Rows of panels; `names`: of the experiments, by place."""

    names: tuple[str, ...]
    rows: tuple[tuple[Panel, ...], ...] = field(default=())


def picture(experiments: Sequence[Experiment], globs: Sequence[str] = (), statistics: Sequence[str] = ()) -> Picture:
    """The picture of experiments that were asked for with their statistics.

    Args:
        globs: only tensors whose names match one of these.
        statistics: a panel for each of these, in place of ranges and clipped shares; dotted paths into a tensor.

    Raises:
        NotFoundError: no tensor matches, or none has such a statistic.
    """
    chosen = [_chosen(experiment, globs) for experiment in experiments]
    kinds = _by_kind(chosen)
    if not kinds:
        raise NotFoundError(_nothing(experiments, globs))
    if len(kinds) > MAX_ROWS:
        raise NotFoundError(
            f"{len(kinds)} kinds of tensors are too many for a picture of at most {MAX_ROWS}: choose with --tensors"
        )
    panels = [_statistic(name, chosen) for name in statistics]
    names = tuple(_name(experiment) for experiment in experiments)
    rows = [
        tuple(panel(escape(kind), layers, tensors) for panel in panels or _standard(tensors))
        for kind, (layers, tensors) in kinds.items()
    ]
    results = () if statistics else tuple(_results(experiments))
    return Picture(names, (*rows, *((results,) if results else ())))


_Tensors = Mapping[str, Mapping[str, Any]]
# The tensors of one kind: for each experiment, by layer.
_Kind = Sequence[Mapping[str, Mapping[str, Any]]]
_MakePanel = Callable[[str, tuple[str, ...], _Kind], Panel]


def _chosen(experiment: Experiment, globs: Sequence[str]) -> _Tensors:
    tensors = experiment.record.get("activation_stats")
    return {
        name: tensor
        for name, tensor in (tensors if isinstance(tensors, Mapping) else {}).items()
        if isinstance(tensor, Mapping) and (not globs or any(fnmatchcase(name, glob) for glob in globs))
    }


def _nothing(experiments: Sequence[Experiment], globs: Sequence[str]) -> str:
    there = list(dict.fromkeys(name for experiment in experiments for name in _chosen(experiment, ())))
    if not there:
        which = ", ".join(escape(experiment.name) for experiment in experiments)
        return f"no statistics of tensors in {which}: nothing to plot"
    more = f", and {len(there) - _SHOWN_NAMES} more" if len(there) > _SHOWN_NAMES else ""
    names = ", ".join(map(escape, there[:_SHOWN_NAMES]))
    return f"no tensor matches {' or '.join(map(repr, globs))}: there are {names}{more}"


def _by_kind(chosen: Sequence[_Tensors]) -> dict[str, tuple[tuple[str, ...], _Kind]]:
    """The tensors by what stands after the layer in their names, with the layers that have any, in order."""
    found: dict[str, list[dict[str, Mapping[str, Any]]]] = {}
    for place, tensors in enumerate(chosen):
        for name, tensor in tensors.items():
            match = _IN_LAYER.fullmatch(name)
            layer, kind = match.groups() if match else ("", name)
            found.setdefault(kind, [{} for _ in chosen])[place][layer] = tensor
    return {
        kind: (tuple(sorted({layer for one in all_ for layer in one}, key=_order)), all_)
        for kind, all_ in found.items()
    }


def _order(layer: str) -> int:
    return int(layer or 0)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _values(layers: Sequence[str], tensors: Mapping[str, Mapping[str, Any]], path: str) -> tuple[Point, ...]:
    """The numbers under a path; what is no finite number has no point."""
    found = ((place, _number(at(tensors.get(layer), path))) for place, layer in enumerate(layers))
    return tuple(Point(place, value) for place, value in found if value is not None)


def _intervals(layers: Sequence[str], tensors: Mapping[str, Mapping[str, Any]], name: str) -> tuple[Point, ...]:
    ends = (
        (place, _number(at(tensors.get(layer), f"{name}.min")), _number(at(tensors.get(layer), f"{name}.max")))
        for place, layer in enumerate(layers)
    )
    return tuple(Point(place, high, low) for place, low, high in ends if low is not None and high is not None)


def _standard(tensors: _Kind) -> list[_MakePanel]:
    reordered = any("before_reorder" in tensor for one in tensors for tensor in one.values())
    return [_ranges, _clipped, *((_reorder,) if reordered else ())]


def _ranges(kind: str, layers: tuple[str, ...], tensors: _Kind) -> Panel:
    series = [
        Series(label(word), place, _intervals(layers, one, key), faint=key == "before_percentile")
        for place, one in enumerate(tensors)
        for key, word in (("before_percentile", "before_clipping"), ("after_percentile", "after_clipping"))
    ]
    return Panel(f"{kind}: {label('range')}", Form.INTERVALS, layers, _filled(series), label("layer"))


def _clipped(kind: str, layers: tuple[str, ...], tensors: _Kind) -> Panel:
    series = []
    for place, one in enumerate(tensors):
        # Lines of the earlier logger have what alpha promises alone.
        points = _values(layers, one, "measured_clipped_ratio") or _values(layers, one, "clipped_ratio")
        series.append(Series(label("clipped"), place, points))
    return Panel(f"{kind}: {label('clipped')}", Form.VALUES, layers, _filled(series), label("layer"), percent=True)


def _reorder(kind: str, layers: tuple[str, ...], tensors: _Kind) -> Panel:
    series = [
        # Not from min to max: after reordering a range is what the grouped scales span (see `qlog.v1`).
        Series(label(key), place, _values(layers, one, f"{key}.range"), faint=key == "before_reorder")
        for place, one in enumerate(tensors)
        for key in ("before_reorder", "after_reorder")
    ]
    return Panel(f"{kind}: {label('reorder_effect')}", Form.INTERVALS, layers, _filled(series), label("layer"))


def _statistic(name: str, chosen: Sequence[_Tensors]) -> _MakePanel:
    told = [tensor for tensors in chosen for tensor in tensors.values()]
    if all(_number(at(tensor, name)) is None for tensor in told):
        there = ", ".join(map(escape, dict.fromkeys(path for tensor in told for path in _numeric(tensor))))
        raise NotFoundError(f"no tensor has a number {escape(name)!r}: choose from {there or 'none'}")

    def panel(kind: str, layers: tuple[str, ...], tensors: _Kind) -> Panel:
        series = [Series(escape(name), place, _values(layers, one, name)) for place, one in enumerate(tensors)]
        return Panel(f"{kind}: {escape(name)}", Form.VALUES, layers, _filled(series), label("layer"))

    return panel


def _numeric(tensor: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name, value in tensor.items():
        inner = f"{path}.{name}" if path else name
        if isinstance(value, Mapping):
            yield from _numeric(value, inner)
        elif _number(value) is not None:
            yield inner


def _results(experiments: Sequence[Experiment]) -> Iterator[Panel]:
    """What several experiments came to, side by side."""
    if len(experiments) < 2:
        return
    ticks = tuple(escape(experiment.name) for experiment in experiments)
    for key in ("accuracy", "perplexity"):
        values = [(place, _number(at(one.record, f"results.{key}"))) for place, one in enumerate(experiments)]
        series = [Series(label(key), place, (Point(place, value),)) for place, value in values if value is not None]
        if series:
            yield Panel(label(key), Form.BARS, ticks, tuple(series), label("experiment"), percent=key == "accuracy")


def _filled(series: Iterable[Series]) -> tuple[Series, ...]:
    return tuple(one for one in series if one.points)


def _name(experiment: Experiment) -> str:
    config = experiment.record.get("config")
    config = config if isinstance(config, Mapping) else {}
    alpha = f"alpha {alpha_text(alpha_of(config))}"
    return " ".join(as_text(part) for part in (experiment.name, config.get("model"), bits(config), alpha) if part)


__all__ = ["MAX_EXPERIMENTS", "MAX_ROWS", "Form", "Panel", "Picture", "Point", "Series", "picture"]
