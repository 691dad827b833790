"""A picture of experiments as a file: which fonts and which language it can have, and what is told of it."""

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from client.documents import Facts, Flat, Output
from client.errors import MissingPackageError
from client.labels import label, speaking
from client.plot_data import Picture
from client.text import escape

KINDS = ("png", "svg", "pdf")


def require_matplotlib() -> None:
    """Say what to install where it is not there, before anything is asked for.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise MissingPackageError("pictures need matplotlib: pip install 'qlog-ssm[plot]'")


def write_picture(make: Callable[[], Picture], output: Path, font: Path | None, warn: Callable[[str], None]) -> Picture:
    """Write a picture into a file whose ending is one of KINDS.

    Args:
        make: the picture, in the language that is spoken when it is called.
        output: written whole or not at all.
        font: for what the default font does not have.
        warn: told once where this machine has no font for a text; then labels are English, and other texts in codes.

    Raises:
        InputError: `font` is none.
        OutputError: the file cannot be written.
    """
    from client.plot_fonts import fonts_for, names_for_viewers
    from client.render_plot import save, texts
    from client.whole_file import whole_file

    kind = output.suffix.lower().removeprefix(".")
    drawn = picture = make()
    fonts = fonts_for(texts(picture), font)
    families: Sequence[str] = fonts.families
    if fonts.missing and kind == "svg":
        families = tuple(dict.fromkeys((*families, *names_for_viewers())))
    elif fonts.missing:
        warn(
            f"no font on this machine has {escape(''.join(sorted(fonts.missing))[:8])}: labels are English, such names "
            "codes; install one (fonts-noto-cjk), give --font FILE, or write .svg"
        )
        with speaking("en"):
            drawn = make()
        drawn = _without(drawn, fonts_for(texts(drawn), font).missing)
    with whole_file(output) as stream:
        save(drawn, stream, kind, families)
    return picture


def _without(value: Any, missing: frozenset[str]) -> Any:
    """The same with codes for characters that no font has."""
    if isinstance(value, str):
        return "".join(
            character.encode("unicode_escape").decode("ascii") if character in missing else character
            for character in value
        )
    if isinstance(value, tuple):
        return tuple(_without(item, missing) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{each.name: _without(getattr(value, each.name), missing) for each in fields(value)})
    return value


def plot_output(picture: Picture, output: Path) -> Output:
    """What is told of a picture: its file, what it shows; in JSON and CSV the numbers themselves."""
    panels = [panel for row in picture.rows for panel in row]
    entries = (
        (label("file"), escape(str(output))),
        (label("experiments"), "; ".join(picture.names)),
        (label("panels"), "; ".join(panel.title for panel in panels)),
    )
    rows = [
        (panel.title, picture.names[series.experiment], series.name, panel.ticks[point.place], point.low, point.high)
        for panel in panels
        for series in panel.series
        for point in series.points
    ]
    data = {
        "file": str(output),
        "experiments": list(picture.names),
        "panels": [
            {
                "title": panel.title,
                "series": [
                    {
                        "experiment": series.experiment,
                        "name": series.name,
                        "points": [
                            {"at": panel.ticks[point.place], "low": point.low, "high": point.high}
                            for point in series.points
                        ],
                    }
                    for series in panel.series
                ],
            }
            for panel in panels
        ],
    }
    header = ("panel", "experiment", "series", "at", "low", "high")
    return Output((Facts(entries),), data, Flat(header, rows))


__all__ = ["KINDS", "plot_output", "require_matplotlib", "write_picture"]
