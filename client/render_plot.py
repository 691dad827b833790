"""Draws a picture into a file. The only importer of matplotlib, with `client.plot_fonts`."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, BinaryIO

import matplotlib
import matplotlib.patches
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from client.plot_data import Form, Panel, Picture, Series

_PANEL_INCHES = (5.2, 2.7)
_LEGEND_INCHES = 0.28
_COLOURS = "tab10"
_FAINT, _WIDTH = 0.35, 0.8
# So many names of layers have room below a panel.
_MAX_TICKS = 16


def figure(picture: Picture, families: Sequence[str]) -> Figure:
    """The picture as matplotlib's figure; texts stand as they are, none is read as a formula."""
    columns = max(map(len, picture.rows))
    head = _LEGEND_INCHES * len(list(_legend(picture)))
    size = (_PANEL_INCHES[0] * columns, _PANEL_INCHES[1] * len(picture.rows) + head)
    with matplotlib.rc_context(_settings(families)):
        drawn = Figure(figsize=size, layout="constrained")
        grid = drawn.subplots(len(picture.rows), columns, squeeze=False)
        for axes_row, row in zip(grid, picture.rows, strict=True):
            for place, axes in enumerate(axes_row):
                if place < len(row):
                    _draw(axes, row[place], len(picture.names))
                else:
                    axes.remove()
        drawn.legend(handles=list(_legend(picture)), loc="outside upper left", frameon=False)
    return drawn


def save(picture: Picture, stream: BinaryIO, kind: str, families: Sequence[str]) -> None:
    """Write the picture as "png", "svg" or "pdf"; the same bytes for the same picture.

    An SVG has its texts as text, in fonts that its viewer has.
    """
    dated: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    drawn = figure(picture, families)
    with matplotlib.rc_context(_settings(families)), warnings.catch_warnings():
        if kind == "svg":
            # Its texts are only measured here, roughly where no font has them.
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
        drawn.savefig(stream, format=kind, dpi=120, metadata=dated[kind])


def texts(value: Any) -> Iterator[str]:
    """All texts of a picture."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from texts(item)
    elif is_dataclass(value):
        for each in fields(value):
            yield from texts(getattr(value, each.name))


def _settings(families: Sequence[str]) -> Any:
    # Any: matplotlib types the names of its settings, and so every mapping of them.
    return {
        "font.family": list(families),
        "font.size": 9,
        # Boxes in place of glyphs are no texts.
        "font.enable_last_resort": False,
        "text.parse_math": False,
        "axes.unicode_minus": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "qlog",
        "pdf.fonttype": 42,
    }


def _colour(place: int) -> Any:
    return matplotlib.colormaps[_COLOURS](place)


def _legend(picture: Picture) -> Iterator[matplotlib.patches.Patch]:
    """The colour of each experiment; what is pale and what is not."""
    for place, name in enumerate(picture.names):
        yield matplotlib.patches.Patch(color=_colour(place), label=name)
    shades = {
        series.name: series.faint
        for row in picture.rows
        for panel in row
        if panel.form is Form.INTERVALS
        for series in panel.series
    }
    for name, faint in shades.items():
        yield matplotlib.patches.Patch(color="0.3", alpha=_FAINT if faint else 1.0, label=name)


def _draw(axes: Axes, panel: Panel, experiments: int) -> None:
    axes.set_title(panel.title, fontsize=9, loc="left")
    axes.set_xlabel(panel.axis)
    for series in panel.series:
        match panel.form:
            case Form.VALUES:
                _draw_values(axes, series)
            case Form.INTERVALS:
                _draw_bars(axes, series, experiments)
            case Form.BARS:
                _draw_bars(axes, series, 1)
    step = -(-len(panel.ticks) // _MAX_TICKS)
    axes.set_xticks(range(0, len(panel.ticks), step), panel.ticks[::step])
    axes.set_xlim(-0.6, len(panel.ticks) - 0.4)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if panel.percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    if panel.form is Form.INTERVALS:
        axes.axhline(0, color="0.6", linewidth=0.6, zorder=0)
    if not panel.series:
        axes.text(0.5, 0.5, "-", transform=axes.transAxes, ha="center", va="center", color="0.5")


def _draw_values(axes: Axes, series: Series) -> None:
    xs, ys = [point.place for point in series.points], [point.high for point in series.points]
    axes.plot(xs, ys, marker="o", markersize=3, linewidth=1, color=_colour(series.experiment), label=series.name)


def _draw_bars(axes: Axes, series: Series, experiments: int) -> None:
    """Bars of all experiments side by side at each place; what was before is wider and paler than what came of it."""
    slot = _WIDTH / experiments
    shift = (series.experiment + 0.5) * slot - _WIDTH / 2 if experiments > 1 else 0.0
    axes.bar(
        [point.place + shift for point in series.points],
        [point.high - point.low for point in series.points],
        bottom=[point.low for point in series.points],
        width=slot * (0.92 if series.faint else 0.6),
        color=_colour(series.experiment),
        alpha=_FAINT if series.faint else 1.0,
        label=series.name,
    )


__all__ = ["figure", "save", "texts"]
