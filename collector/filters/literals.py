"""Values in filters: what a word can mean as a number, a truth, a time, a length of time, a pattern."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from collector.index_values import Value

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_INFINITE = {"infinity": float("inf"), "+infinity": float("inf"), "-infinity": float("-inf"), "inf": float("inf")}
_LENGTH = re.compile(r"([+-]?\d+(?:\.\d+)?|[+-]?\.\d+)(ms|s|m|min|h|d|w)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_WALL = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T ](\d\d)(?::(\d\d)(?::(\d\d)(?:\.\d+)?)?)?)?)?)?")
_STAR = re.compile(r"(?<!\\)\*")
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True)
class Literal:
    """A value to compare with; a record's value is compared with what it can mean for that value's type.

    Attributes:
        text: in lower case (of ASCII), without escapes.
        number: None where it is no number.
        truth: None where it is neither true nor false.
        nan: it is NaN.
        null: it is null.
        anything: it is `*`.
        glob: a pattern of SQLite's GLOB; empty where there is no wildcard.
        quoted: as text it orders texts, as a bare number it does not.
    """

    text: str
    number: int | float | None = None
    truth: bool | None = None
    nan: bool = False
    null: bool = False
    anything: bool = False
    glob: str = ""
    quoted: bool = True


@dataclass(frozen=True, slots=True)
class Moment:
    """A time in a filter.

    Attributes:
        instant: seconds since 1970; None for a time on the clock of the machine that ran the experiment.
        start, end: YYYY-MM-DD HH:MM:SS, where `instant` is None: the second, day, month or year that was named.
    """

    instant: float | None = None
    start: str = ""
    end: str = ""


def fold(text: str) -> str:
    """Text as it is compared: ASCII letters in lower case, as SQLite's NOCASE and lower() have it."""
    return text.encode("utf-8", "replace").lower().decode()


def literal_of(text: str, *, quoted: bool) -> Literal:
    """What a word can mean."""
    plain = text.replace("\\*", "*").replace("\0", "\ufffd")
    lowered = fold(plain)
    wild = _STAR.search(text) is not None
    return Literal(
        text=lowered,
        number=number_of(plain),
        truth={"true": True, "false": False}.get(lowered),
        nan=lowered == "nan",
        null=lowered == "null" and not quoted,
        anything=text == "*",
        glob=glob_of(text) if wild else "",
        quoted=quoted,
    )


def number_of(text: str) -> int | float | None:
    """The number that a text is, None where it is none."""
    if _NUMBER.fullmatch(text):
        if text.lstrip("+-").isdigit() and len(text) < 20 and int(text) in _INT64:
            return int(text)
        return float(text)
    return _INFINITE.get(text.lower())


def glob_of(text: str) -> str:
    r"""The GLOB pattern of a text with `*` as wildcard and `\*` as a star."""
    out = []
    for part in re.split(r"(\\\*|\*)", fold(text)):
        if part == "*":
            out.append("*")
        elif part == "\\*":
            out.append("[*]")
        else:
            out.append(re.sub(r"[\[?*]", lambda match: f"[{match[0]}]", part))
    return re.sub(r"\*+", "*", "".join(out)) if "[*]" not in out else "".join(out)


def regex_of(text: str) -> re.Pattern[str]:
    """The same as a regular expression, for names that are matched outside of SQLite."""
    parts = re.split(r"(\\\*|\*)", text)
    source = "".join(".*" if part == "*" else re.escape("*" if part == "\\*" else part) for part in parts)
    return re.compile(re.sub(r"(\.\*)+", ".*", source), re.DOTALL)


def seconds_of(text: str) -> float | None:
    """The length of time that a text such as 90s, -7d, 1.5h is."""
    match = _LENGTH.fullmatch(text)
    return float(match[1]) * _SECONDS[match[2]] if match else None


def moment_of(text: str, now: float) -> Moment | None:
    """The time that a text names: a date, a date and time, RFC 3339, or how long ago as -7d."""
    if (length := seconds_of(text)) is not None:
        return Moment(instant=now + length)
    match = _WALL.fullmatch(text)
    try:
        if match is None:
            return Moment(instant=datetime.fromisoformat(text).timestamp())
        year, *rest = (None if part is None else int(part) for part in match.groups())
        month, day, hour, minute, second = rest
        start = datetime(year or 0, month or 1, day or 1, hour or 0, minute or 0, second or 0)
        end = _after(start, [month, day, hour, minute].count(None))
    except (ValueError, OverflowError, OSError):
        return None
    return Moment(start=wall_text(start), end=wall_text(end))


def _after(start: datetime, missing: int) -> datetime:
    match missing:
        case 4:
            return start.replace(year=start.year + 1)
        case 3:
            return (start.replace(day=1) + timedelta(days=32)).replace(day=1)
        case 2:
            return start + timedelta(days=1)
        case 1:
            return start + timedelta(hours=1)
        case _:
            return start + timedelta(seconds=1)


def wall_text(moment: datetime) -> str:
    """A time in the form in which the index has timestamps."""
    return moment.strftime("%Y-%m-%d %H:%M:%S").rjust(19, "0")


def number_literal(number: float) -> Literal:
    """A literal that is a number."""
    return Literal(str(number), number=number, quoted=False)


def text_literal(text: str) -> Literal:
    """A literal that is a text."""
    return Literal(fold(text))


__all__ = [
    "Literal",
    "Moment",
    "Value",
    "fold",
    "glob_of",
    "literal_of",
    "moment_of",
    "number_literal",
    "number_of",
    "regex_of",
    "seconds_of",
    "text_literal",
    "wall_text",
]
