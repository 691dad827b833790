"""Times in filters: words and functions that name one, and comparisons with it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from collector.filters.conditions import ORDERING, Condition, Joined, Reading, Test
from collector.filters.fields import Field
from collector.filters.literals import (
    Moment,
    literal_of,
    moment_of,
    number_literal,
    number_of,
    seconds_of,
    text_literal,
    wall_text,
)
from collector.filters.syntax import Call, Word


def moment_in(value: Word | Call, reading: Reading) -> Moment:
    """The time that a word or a function names.

    Raises:
        FilterError: it names none.
    """
    if isinstance(value, Word):
        moment = moment_of(value.text, reading.now)
        if moment is None:
            raise reading.wrong(
                f'{value.text!r} is no time: write "2026-11-01", "2026-11-01 15:30", an RFC 3339 time or -7d, -12h',
                value.span,
            )
        return moment
    arguments = [argument for argument in value.arguments if isinstance(argument, Word)]
    known = _FUNCTIONS.get(value.name.lower())
    if known is None or len(arguments) != len(value.arguments) or len(arguments) != known[0]:
        shown = ", ".join(shown for _, _, shown in _FUNCTIONS.values())
        raise reading.wrong(f"no such time: there are {shown}", value.span)
    made = known[1](reading.now, *(argument.text for argument in arguments))
    if made is None:
        raise reading.wrong(f"{value.name}() cannot be had of {arguments[0].text!r}", arguments[0].span)
    return made


def compared_with_time(field: Field, operator: str, value: Word | Call, reading: Reading) -> Condition:
    """A comparison with a time: on the clock of the experiment's machine, or as an instant.

    Raises:
        FilterError: the value names no time.
    """
    moment = moment_in(value, reading)
    if moment.instant is not None:
        return Test(replace(field, column="instant"), operator, number_literal(moment.instant))
    texts = (moment.start, moment.end)
    try:
        bounds = [
            number_literal(datetime.fromisoformat(text).timestamp())
            if field.column == "instant"
            else text_literal(text)
            for text in texts
        ]
    except (ValueError, OverflowError, OSError):
        raise reading.wrong("this time is too far away to be compared with", value.span) from None
    if operator in ORDERING:
        return Test(field, operator, bounds[0])
    within = Joined("AND", (Test(field, ">=", bounds[0]), Test(field, "<", bounds[1])))
    if operator == "!=":
        there = Test(field, "!=", literal_of("null", quoted=False))
        return Joined("AND", (there, Joined("NOT", (within,))))
    return within


def wall_time_in(value: Word | Call, reading: Reading) -> str:
    """The time that a word or a function names, as YYYY-MM-DD HH:MM:SS on this machine's clock.

    Raises:
        FilterError: it names none, or none that a clock shows.
    """
    moment = moment_in(value, reading)
    if moment.instant is None:
        return moment.start
    try:
        return wall_text(datetime.fromtimestamp(moment.instant))
    except (ValueError, OverflowError, OSError):
        raise reading.wrong("this time is too far away for a date", value.span) from None


def _day(now: float, days: int) -> Moment | None:
    day = datetime.fromtimestamp(now) + timedelta(days=days)
    return moment_of(day.strftime("%Y-%m-%d"), now)


def _ago(now: float, unit: float, text: str) -> Moment | None:
    number = number_of(text)
    return None if number is None else Moment(instant=now - unit * number)


def _length_ago(now: float, text: str) -> Moment | None:
    seconds = seconds_of(text)
    return None if seconds is None else Moment(instant=now - abs(seconds))


# Name -> number of arguments, how it is made, how it is shown.
_FUNCTIONS: Mapping[str, tuple[int, Callable[..., Moment | None], str]] = {
    "now": (0, lambda now: Moment(instant=now), "now()"),
    "today": (0, lambda now: _day(now, 0), "today()"),
    "yesterday": (0, lambda now: _day(now, -1), "yesterday()"),
    "daysago": (1, lambda now, text: _ago(now, 86400.0, text), "daysAgo(7)"),
    "hoursago": (1, lambda now, text: _ago(now, 3600.0, text), "hoursAgo(12)"),
    "ago": (1, _length_ago, "ago(7d)"),
    "date": (1, lambda now, text: moment_of(text, now), 'date("2026-11-01")'),
    "timestamp": (1, lambda now, text: moment_of(text, now), 'timestamp("2026-11-01T10:00:00Z")'),
}

__all__ = ["compared_with_time", "moment_in", "wall_time_in"]
