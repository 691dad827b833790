"""Values as text: escaped, measured in terminal columns, numbers in few digits."""

import math
import re
from datetime import UTC, datetime
from typing import Any, Literal

from qlog.v1.escaping import HARMFUL, escape, harmless_json
from qlog.v1.language import pad, width
from qlog.v1.records import non_finite

_CONTROL_BUT_LINE = re.compile(f"[{HARMFUL}]".replace("\x00-\x1f", "\x00-\x09\x0b-\x1f"))
_NOTHING = "-"
# Whole numbers below it are shown in full: counts.
_ALL_DIGITS = 1e15
_SIZES = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def escape_lines(text: str) -> str:
    """The same for text of several lines: line feeds stay."""
    return _CONTROL_BUT_LINE.sub(lambda match: escape(match[0]), text)


def as_text(value: Any) -> str:
    """Any JSON value as one line: "-" for null, yes and no, whole numbers whole, fractions in six digits."""
    match value:
        case None:
            return _NOTHING
        case bool():
            return "yes" if value else "no"
        case float():
            return number(value)
        case str():
            return escape(value)
        case list() | tuple():
            return ", ".join(as_text(item) for item in value) or _NOTHING
        case dict():
            return ", ".join(f"{escape(str(key))}: {as_text(item)}" for key, item in value.items()) or _NOTHING
        case _:
            return escape(str(value))


def number(value: float, digits: int = 6) -> str:
    """A fraction in so many significant digits, a whole one in all of them; what is not finite as the log writes it."""
    if not math.isfinite(value):
        return non_finite(value)
    if value.is_integer() and abs(value) < _ALL_DIGITS:
        return f"{value:.1f}"
    text = f"{value:.{digits}g}"
    return text if any(mark in text for mark in ".e") else f"{text}.0"


def fixed(value: Any, places: int) -> str:
    """A number with so many decimals; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return as_text(value)
    return f"{value:.{places}f}" if math.isfinite(value) else non_finite(value)


def signed(value: float, places: int | None = None) -> str:
    """A difference with its sign, in so many decimals or in six digits; 0 has none."""
    text = number(value) if places is None else fixed(value, places)
    if not math.isfinite(value):
        return text
    text = text.removeprefix("-")
    if float(text) == 0:
        return text
    return f"-{text}" if value < 0 else f"+{text}"


def percent(fraction: Any, places: int = 2) -> str:
    """A fraction of 1 in per cent."""
    if isinstance(fraction, bool) or not isinstance(fraction, int | float):
        return as_text(fraction)
    return f"{fraction * 100:.{places}f} %" if math.isfinite(fraction) else non_finite(fraction)


def duration(seconds: Any) -> str:
    """9.3 s, 2 min 05 s, 3 h 02 min."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds):
        return as_text(seconds)
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: Any, *, sign: Literal["", "+"] = "") -> str:
    """A number of bytes: 9.19 MB, 512 bytes; with `sign` +, a difference: +5.43 MB, -312.00 kB, 0 bytes."""
    if isinstance(count, bool) or not isinstance(count, int | float) or not math.isfinite(count):
        return as_text(count)
    for unit, factor in _SIZES:
        # What would be rounded up to the larger unit is shown in that.
        if abs(count) >= factor * 0.999995:
            return f"{count / factor:{sign}.2f} {unit}"
    return f"{count:{sign if count else ''}.0f} bytes"


def clock(seconds: float) -> str:
    """Seconds since 1970 as local time."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


__all__ = [
    "as_text",
    "clock",
    "duration",
    "escape",
    "escape_lines",
    "fixed",
    "harmless_json",
    "number",
    "pad",
    "percent",
    "signed",
    "size",
    "width",
]
