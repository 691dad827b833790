"""What a filter means: its names looked up, its values read."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from collector.filters.fields import Catalogue, Field, resolve, resolve_statistic
from collector.filters.literals import (
    Literal,
    Moment,
    literal_of,
    moment_of,
    number_literal,
    number_of,
    seconds_of,
    text_literal,
)
from collector.filters.syntax import FOREIGN, Call, Group, Node, Restriction, Word, wrong
from collector.index_values import HOT

STATUSES = ("RUNNING", "COMPLETED", "FAILED", "CANCELLED", "LOST", "CORRUPT")
_ORDERING = frozenset(("<", "<=", ">", ">="))
# A part of a timestamp on the left -> its place in YYYY-MM-DD HH:MM:SS, and its length.
DATE_PARTS: Mapping[str, tuple[int, int]] = {"year": (1, 4), "month": (6, 2), "day": (9, 2), "hour": (12, 2)}
_TIMES = frozenset(("timestamp", "instant"))
_FLAGS = frozenset(("group_heads", "apply_gptq", "archived"))
_NUMBERS = frozenset(("number", "duration_s", "w_bits", "a_bits", "percentile_alpha", "accuracy", "perplexity"))


@dataclass(frozen=True, slots=True)
class Words:
    """Text that stands anywhere in model, command, tags or note; with a `glob` where it has wildcards."""

    text: str
    glob: str = ""


@dataclass(frozen=True, slots=True)
class Test:
    """A field's value compared with a literal; `part`: of a timestamp, year to hour, or its date."""

    field: Field
    operator: str
    literal: Literal
    part: str = ""


@dataclass(frozen=True, slots=True)
class Layers:
    """Some tensor whose name matches `pattern` has a statistic that compares so."""

    pattern: str
    statistic: str
    operator: str
    literal: Literal


@dataclass(frozen=True, slots=True)
class Joined:
    """Conditions of which all (AND) or some (OR) hold, or not the one (NOT)."""

    by: str
    parts: "tuple[Condition, ...]"


Condition = Words | Test | Layers | Joined


def read_filter(text: str, catalogue: Catalogue, now: float) -> Condition | None:
    """What a filter means; None where it is empty.

    Args:
        now: what relative times are relative to, in seconds since 1970.

    Raises:
        FilterError: it is wrong.
    """
    if not text.strip():
        return None
    # Imported when there is a filter: its parser takes longer than opening a small store.
    from collector.filters.grammar import parse

    node = parse(text)
    return None if node is None else _Reader(text, catalogue, now).condition(node)


class _Reader:
    def __init__(self, text: str, catalogue: Catalogue, now: float) -> None:
        self._text = text
        self._catalogue = catalogue
        self._now = now

    def condition(self, node: Node) -> Condition:
        if isinstance(node, Group):
            return Joined(node.joined_by, tuple(self.condition(part) for part in node.parts))
        if isinstance(node.left, Call):
            return self._function(node, node.left)
        if not node.operator:
            return self._words(node.left)
        return self._compared(node.left, node.operator, node.right)

    def _words(self, word: Word) -> Condition:
        self._check_foreign(word)
        literal = literal_of(word.text, quoted=word.quoted)
        return Words(literal.text, literal.glob)

    def _check_foreign(self, word: Word) -> None:
        if not word.quoted and (advice := FOREIGN.get(word.text)) is not None:
            raise wrong(f"{word.text} is no operator: {advice}", self._text, word.span)

    def _compared(self, left: Word, operator: str, right: Word | Call | Group | None) -> Condition:
        field = resolve(left.text, self._catalogue, self._text, left.span)
        return self._each(right, lambda value: self._test(field, operator, value))

    def _each(self, right: Word | Call | Group | None, test: Callable[[Word | Call], Condition]) -> Condition:
        """A comparison with one value, or with each of a group of them."""
        if isinstance(right, Group):
            parts = []
            for part in right.parts:
                if isinstance(part, Restriction):
                    if part.operator:
                        place = part.left.span
                        raise wrong("only values can stand here, joined by OR or AND", self._text, place)
                    parts.append(self._each(part.left, test))
                else:
                    parts.append(self._each(part, test))
            return Joined(right.joined_by, tuple(parts)) if len(parts) > 1 or right.joined_by == "NOT" else parts[0]
        if right is None:
            raise AssertionError("the grammar has an operand after every operator")
        return test(right)

    def _test(self, field: Field, operator: str, value: Word | Call) -> Condition:
        if isinstance(value, Word):
            self._check_foreign(value)
        if field.column in _TIMES:
            literal = None if isinstance(value, Call) else literal_of(value.text, quoted=value.quoted)
            if literal is None or not (literal.null or literal.anything or literal.glob):
                return _at(field, operator, self._moment(value))
        if isinstance(value, Call):
            moment = self._moment(value)
            return Test(field, operator, _as_literal(moment))
        literal = literal_of(value.text, quoted=value.quoted)
        known = literal.null or literal.anything or literal.glob or literal.text.upper() in STATUSES
        if field.column == "status" and not known:
            raise wrong(f"no status {value.text!r}: one of {', '.join(STATUSES)}", self._text, value.span)
        if field.name.endswith("_s") and literal.number is None and (seconds := seconds_of(value.text)) is not None:
            return Test(field, operator, number_literal(seconds))
        self._check_type(field, operator, literal, value)
        return Test(field, operator, literal)

    def _check_type(self, field: Field, operator: str, literal: Literal, value: Word) -> None:
        if operator in _ORDERING and (literal.null or literal.anything or literal.truth is not None or literal.glob):
            raise wrong(f"{operator} needs a number, a text or a time, not {value.text}", self._text, value.span)
        special = literal.null or literal.anything
        if field.column in _FLAGS and not special and (literal.truth is None or operator in _ORDERING):
            raise wrong(f"{field.name} is true or false, not {value.text!r}", self._text, value.span)
        # Other loggers' lines may have texts there, but none that orders them.
        if field.column in _NUMBERS and operator in _ORDERING and literal.number is None:
            raise wrong(f"{field.name} is a number, {value.text!r} is none", self._text, value.span)

    # --- functions ---

    def _function(self, node: Restriction, call: Call) -> Condition:
        name = call.name.lower()
        if name == "anylayer":
            return self._any_layer(node, call)
        if name in DATE_PARTS or name == "date":
            return self._date_part(node, call, name)
        raise wrong(
            f"no function {call.name}() can stand here: there are anyLayer, date, {', '.join(DATE_PARTS)}",
            self._text,
            call.span,
        )

    def _any_layer(self, node: Restriction, call: Call) -> Condition:
        words = [argument for argument in call.arguments if isinstance(argument, Word)]
        if len(words) != 2 or len(call.arguments) != 2:
            raise wrong('anyLayer takes two texts: anyLayer("*.x_proj:input", "clipped_ratio")', self._text, call.span)
        pattern = words[0].text
        statistic = resolve_statistic(words[1].text, self._catalogue, self._text, words[1].span)
        if not node.operator:
            return Layers(pattern, statistic, ":", literal_of("*", quoted=False))

        def test(value: Word | Call) -> Condition:
            if isinstance(value, Call):
                raise wrong("a value has to stand here, not a function", self._text, value.span)
            literal = literal_of(value.text, quoted=value.quoted)
            if node.operator in _ORDERING and literal.number is None:
                raise wrong(f"{node.operator} needs a number, {value.text!r} is none", self._text, value.span)
            if literal.null:
                raise wrong("statistics that are not there match nothing: NOT anyLayer(...)", self._text, value.span)
            return Layers(pattern, statistic, node.operator, literal)

        return self._each(node.right, test)

    def _date_part(self, node: Restriction, call: Call, name: str) -> Condition:
        argument = call.arguments[0] if len(call.arguments) == 1 else None
        if not isinstance(argument, Word):
            raise wrong(f"{call.name} takes a field: {call.name}(timestamp)", self._text, call.span)
        field = resolve(argument.text, self._catalogue, self._text, argument.span)
        if field.column != "timestamp":
            raise wrong(f"{call.name} is of timestamp, not of {field.name}", self._text, argument.span)
        if not node.operator:
            raise wrong(f"{call.name}({argument.text}) has to be compared with something", self._text, call.span)

        def test(value: Word | Call) -> Condition:
            if name == "date":
                day = _start(self._moment(value))[:10]
                return Test(field, node.operator, text_literal(day), part=name)
            literal = None if isinstance(value, Call) else literal_of(value.text, quoted=value.quoted)
            if literal is None or literal.number is None:
                raise wrong(f"{call.name}({argument.text}) is a number", self._text, value.span)
            return Test(field, node.operator, literal, part=name)

        return self._each(node.right, test)

    def _moment(self, value: Word | Call) -> Moment:
        if isinstance(value, Word):
            moment = moment_of(value.text, self._now)
            if moment is None:
                raise wrong(
                    f'{value.text!r} is no time: write "2026-11-01", "2026-11-01 15:30", an RFC 3339 time or -7d, -12h',
                    self._text,
                    value.span,
                )
            return moment
        arguments = [argument for argument in value.arguments if isinstance(argument, Word)]
        known = _TIME_FUNCTIONS.get(value.name.lower())
        if known is None or len(arguments) != len(value.arguments) or len(arguments) != known[0]:
            raise wrong(
                f"no such time: there are {', '.join(shown for _, _, shown in _TIME_FUNCTIONS.values())}",
                self._text,
                value.span,
            )
        made = known[1](self._now, *(argument.text for argument in arguments))
        if made is None:
            raise wrong(f"{value.name}() cannot be had of {arguments[0].text!r}", self._text, arguments[0].span)
        return made


def _at(field: Field, operator: str, moment: Moment) -> Condition:
    """A comparison with a time: on the clock of the experiment's machine, or as an instant."""
    instant = replace(field, column="instant")
    if moment.instant is not None:
        return Test(instant, operator, number_literal(moment.instant))
    if field.column == "instant":
        bounds = [number_literal(datetime.fromisoformat(text).timestamp()) for text in (moment.start, moment.end)]
    else:
        bounds = [text_literal(moment.start), text_literal(moment.end)]
    if operator in _ORDERING:
        return Test(field, operator, bounds[0])
    within = Joined("AND", (Test(field, ">=", bounds[0]), Test(field, "<", bounds[1])))
    if operator == "!=":
        there = Test(field, "!=", literal_of("null", quoted=False))
        return Joined("AND", (there, Joined("NOT", (within,))))
    return within


def _start(moment: Moment) -> str:
    if moment.instant is None:
        return moment.start
    return datetime.fromtimestamp(moment.instant).strftime("%Y-%m-%d %H:%M:%S")


def _as_literal(moment: Moment) -> Literal:
    return text_literal(_start(moment))


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
_TIME_FUNCTIONS: Mapping[str, tuple[int, Callable[..., Moment | None], str]] = {
    "now": (0, lambda now: Moment(instant=now), "now()"),
    "today": (0, lambda now: _day(now, 0), "today()"),
    "yesterday": (0, lambda now: _day(now, -1), "yesterday()"),
    "daysago": (1, lambda now, text: _ago(now, 86400.0, text), "daysAgo(7)"),
    "hoursago": (1, lambda now, text: _ago(now, 3600.0, text), "hoursAgo(12)"),
    "ago": (1, _length_ago, "ago(7d)"),
    "date": (1, lambda now, text: moment_of(text, now), 'date("2026-11-01")'),
    "timestamp": (1, lambda now, text: moment_of(text, now), 'timestamp("2026-11-01T10:00:00Z")'),
}


def current_time() -> float:
    """What relative times in filters are relative to."""
    return time.time()


__all__ = [
    "DATE_PARTS",
    "HOT",
    "STATUSES",
    "Condition",
    "Joined",
    "Layers",
    "Test",
    "Words",
    "current_time",
    "read_filter",
]
