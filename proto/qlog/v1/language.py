"""The languages that the programs speak, and the columns that their characters take on a terminal."""

import unicodedata
from collections.abc import Mapping

LANGUAGES = ("en", "zh")


def language_of(environment: Mapping[str, str]) -> str:
    """The language that the locale asks for: the first of LC_ALL, LC_MESSAGES, LANG that is set."""
    locale = next((environment[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if environment.get(name)), "")
    return "zh" if locale.lower().startswith("zh") else "en"


def width(text: str) -> int:
    """Columns on a terminal: two for East Asian wide characters, none for combining ones."""
    if text.isascii():
        return len(text)
    return sum(_character_width(character) for character in text)


def _character_width(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def pad(text: str, columns: int, *, right: bool = False) -> str:
    """The text in so many columns, at the left or at the right of them."""
    space = " " * (columns - width(text))
    return space + text if right else text + space


__all__ = ["LANGUAGES", "language_of", "pad", "width"]
