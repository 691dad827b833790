"""Fonts for texts that the default one has no glyphs for: Chinese labels, names of models in any script."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from client.errors import InputError

_DEFAULT = "DejaVu Sans"
# Those that are made for Chinese first; any other font that has the glyphs after them.
_PREFERRED = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "Microsoft YaHei", "PingFang SC"),
    *("Hiragino Sans GB", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "SimHei", "Heiti SC", "Noto Sans CJK JP"),
    *("Droid Sans Fallback", "Noto Serif CJK SC", "SimSun", "Songti SC", "AR PL UMing CN", "Arial Unicode MS"),
)


@dataclass(frozen=True, slots=True)
class Fonts:
    """Families in the order in which glyphs are looked for, and the characters that none of them has."""

    families: tuple[str, ...]
    missing: frozenset[str]


def fonts_for(texts: Iterable[str], file: Path | None = None) -> Fonts:
    """Fonts on this machine for all characters of some texts.

    Args:
        texts: that are to be written.
        file: a font that is to be used where the default one does not suffice.

    Raises:
        InputError: the file is no font.
    """
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    needed = {character for text in texts for character in text if not character.isspace()}
    missing = needed - _characters(font_manager.findfont(_DEFAULT))
    families = [_DEFAULT]
    if file is not None:
        families.append(_added(file))
        missing -= _characters(str(file))
    for family, path in _candidates() if missing else ():
        found = missing & _characters(path)
        # The first that has everything; a font with a part of it is better than none.
        if found:
            families.append(family)
            missing -= found
        if not missing:
            break
    return Fonts(tuple(families), frozenset(missing))


def names_for_viewers() -> tuple[str, ...]:
    """Families that whoever shows an SVG may have."""
    return (_DEFAULT, *_PREFERRED)


def _added(file: Path) -> str:
    try:
        font_manager.fontManager.addfont(str(file))
        return font_manager.FontProperties(fname=str(file)).get_name()
    except (OSError, RuntimeError) as error:
        raise InputError(f"--font {file}: no font that can be read: {error}") from error


def _candidates() -> list[tuple[str, str]]:
    rank = {name: place for place, name in enumerate(_PREFERRED)}
    # A font of last resort has a box for everything.
    there = {
        font.name: font.fname
        for font in font_manager.fontManager.ttflist
        if not font.name.startswith(("Last Resort", "LastResort"))
    }
    return sorted(there.items(), key=lambda item: (rank.get(item[0], len(rank)), item[0]))


def _characters(path: str) -> set[str]:
    try:
        return {chr(code) for code in FT2Font(path).get_charmap()}
    except (OSError, RuntimeError):
        # A font that was removed since it was found.
        return set()


__all__ = ["Fonts", "fonts_for", "names_for_viewers"]
