"""A place in a filter, shown: the filter, and a caret under the place, whatever the width of its characters."""

import unicodedata

_AROUND = 60


def pointer(text: str, start: int, end: int) -> str:
    """Two lines: the text (around the place, where it is long), and carets under it."""
    start = min(start, len(text))
    end = max(start + 1, min(end, len(text)))
    first, last = max(0, start - _AROUND), min(len(text), max(end, start + _AROUND))
    before = ("..." if first else "") + _shown(text[first:start])
    marked = _shown(text[start : min(end, last)])
    after = _shown(text[min(end, last) : last]) + ("..." if last < len(text) else "")
    return f"  {before}{marked}{after}\n  {' ' * _width(before)}{'^' * max(1, _width(marked))}"


def _shown(text: str) -> str:
    r"""Text on one line, its control characters as \n, \x1b, \u202e."""
    return "".join(
        character if character.isprintable() or character == " " else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def _width(text: str) -> int:
    """Columns on a terminal: two for East Asian wide characters, none for combining ones."""
    return sum(
        0
        if unicodedata.category(character) in {"Mn", "Me", "Cf"}
        else 2
        if unicodedata.east_asian_width(character) in "WF"
        else 1
        for character in text
    )


__all__ = ["pointer"]
