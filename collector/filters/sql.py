"""From a filter's meaning to SQL on the index, every value bound.

A condition is true or false, never unknown: what is absent matches no comparison, and what does not match is matched by
the negation. NULLs that SQL makes of absent values count as false, so only a negation has to turn them into it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import orjson

from collector.filters.conditions import DATE_PARTS, Condition, Joined, Layers, Test, Words
from collector.filters.fields import Field, Keys
from collector.filters.literals import Literal
from collector.index_values import FALSE, NAN, TRUE, Value

_TRIGRAM = 3


@dataclass(frozen=True, slots=True)
class Sql:
    """An expression and the values of its question marks, in order."""

    text: str
    values: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True)
class Places:
    """Where the index keeps what has no column.

    Attributes:
        path: the number of a path's values in the table `extra`; they are complete.
        statistic: the same of a statistic in the table `layer_values`.
        number: the expression for an experiment's number.
    """

    path: Callable[[Keys], int]
    statistic: Callable[[str], int]
    number: str = "l.number"


def compile_filter(condition: Condition, places: Places) -> Sql:
    """The expression on a row `l` of the table `lines`."""
    match condition:
        case Joined("NOT", (part,)):
            inner = compile_filter(part, places)
            return Sql(f"NOT coalesce(({inner.text}), 0)", inner.values)
        case Joined(by, parts):
            return _joined(by, [compile_filter(part, places) for part in parts])
        case Words():
            return _words(condition)
        case Layers():
            literal = condition.literal
            bound = _packed(literal)
            return Sql(
                "EXISTS (SELECT 1 FROM layer_values v WHERE v.statistic = ? AND v.number = l.number"
                " AND qlog_any_layer(v.layout, v.data, ?, ?, ?))",
                (places.statistic(condition.statistic), condition.pattern, condition.operator, bound),
            )
        case Test():
            return _test(condition, places)
    raise AssertionError(condition)


def _joined(by: str, parts: list[Sql]) -> Sql:
    return Sql(
        f" {by} ".join(f"({part.text})" for part in parts), tuple(value for part in parts for value in part.values)
    )


def _words(words: Words) -> Sql:
    if words.glob:
        check = Sql("(SELECT text GLOB ? FROM texts WHERE number = l.number)", (f"*{words.glob.lower()}*",))
        pieces = [piece for piece in words.text.split("*") if len(piece) >= _TRIGRAM]
    else:
        check = Sql("(SELECT instr(text, ?) > 0 FROM texts WHERE number = l.number)", (words.text.lower(),))
        pieces = [words.text] if len(words.text) >= _TRIGRAM else []
    if not pieces:
        return check
    # The index of trigrams narrows it down; what matches is looked at.
    found = Sql("l.number IN (SELECT rowid FROM words WHERE words MATCH ?)", (_trigrams(pieces),))
    return _joined("AND", [found, check])


def _trigrams(pieces: list[str]) -> str:
    grams = dict.fromkeys(
        piece[start : start + _TRIGRAM] for piece in pieces for start in range(min(len(piece) - _TRIGRAM + 1, 64))
    )
    return " AND ".join('"' + gram.lower().replace('"', '""') + '"' for gram in grams)


def _test(test: Test, places: Places) -> Sql:
    field = test.field
    if test.part:
        return _date_part(test)
    if field.column:
        return value_test(_column(field, places), test.operator, test.literal)
    return _path_test(field, test, places)


def _column(field: Field, places: Places) -> str:
    return places.number if field.column == "number" else f"l.{field.column}"


def sort_value(field: Field, places: Places) -> Sql:
    """What experiments are ordered by for a field: NaN is as if it were absent."""
    if field.column:
        return Sql(f"nullif(l.{field.column}, x'6e') COLLATE NOCASE")
    ids = [places.path(keys) for keys in field.paths]
    marks = ", ".join("?" * len(ids))
    inner = f"(SELECT v.value FROM extra v WHERE v.path IN ({marks}) AND v.number = l.number LIMIT 1)"  # noqa: S608
    return Sql(f"nullif({inner}, x'6e') COLLATE NOCASE", tuple(ids))


def _path_test(field: Field, test: Test, places: Places) -> Sql:
    ids = [places.path(keys) for keys in field.paths]
    absent = (test.literal.null and test.operator in ("=", ":")) or (test.literal.anything and test.operator == "!=")
    operator = ("!=" if test.operator in ("=", ":") else "=") if absent else test.operator
    inner = value_test("v.value", operator, test.literal)
    marks = ", ".join("?" * len(ids))
    text = f"EXISTS (SELECT 1 FROM extra v WHERE v.path IN ({marks}) AND v.number = l.number AND ({inner.text}))"  # noqa: S608 - marks
    return Sql(f"NOT {text}" if absent else text, (*ids, *inner.values))


def _date_part(test: Test) -> Sql:
    column = f"l.{test.field.column}"
    is_time = f"{column} GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9] *'"
    if test.part == "date":
        inner = value_test(f"substr({column}, 1, 10)", test.operator, test.literal)
    else:
        start, length = DATE_PARTS[test.part]
        inner = value_test(f"CAST(substr({column}, {start}, {length}) AS INTEGER)", test.operator, test.literal)
    return Sql(f"{is_time} AND ({inner.text})", inner.values)


def value_test(value: str, operator: str, literal: Literal) -> Sql:
    """A comparison of one value (an expression without question marks) with a literal."""
    if operator == "!=":
        if literal.null:
            return Sql(f"{value} IS NOT NULL")
        if literal.anything:
            return Sql(f"{value} IS NULL")
        equal = value_test(value, "=", literal)
        return Sql(f"{value} IS NOT NULL AND NOT coalesce(({equal.text}), 0)", equal.values)
    if operator in ("=", ":"):
        if literal.null:
            return Sql(f"{value} IS NULL")
        if literal.anything:
            return Sql(f"{value} IS NOT NULL")
        return _equal(value, operator, literal)
    if literal.number is not None:
        # Any text is greater than any number to SQLite.
        numbers = Sql(f"({value} {operator} ? AND {value} < '')", (literal.number,))
        if not literal.quoted:
            return numbers
        return _joined("OR", [numbers, _ordered_text(value, operator, literal)])
    return _ordered_text(value, operator, literal)


def _ordered_text(value: str, operator: str, literal: Literal) -> Sql:
    return Sql(f"({value} {operator} ? COLLATE NOCASE AND typeof({value}) = 'text')", (literal.text,))


def _equal(value: str, operator: str, literal: Literal) -> Sql:
    parts = []
    if literal.number is not None:
        parts.append(Sql(f"{value} = ?", (literal.number,)))
    if literal.glob:
        parts.append(Sql(f"(typeof({value}) = 'text' AND lower({value}) GLOB ?)", (literal.glob,)))
    elif operator == ":":
        parts.append(Sql(f"(typeof({value}) = 'text' AND instr(lower({value}), ?) > 0)", (literal.text,)))
    else:
        parts.append(Sql(f"{value} = ? COLLATE NOCASE", (literal.text,)))
    if literal.truth is not None:
        parts.append(Sql(f"{value} = ?", (TRUE if literal.truth else FALSE,)))
    if literal.nan:
        parts.append(Sql(f"{value} = ?", (NAN,)))
    parts.append(
        Sql(
            f"(typeof({value}) = 'blob' AND length({value}) > 1 AND qlog_has({value}, ?, ?))",
            (operator, _packed(literal)),
        )
    )
    return _joined("OR", parts)


def _packed(literal: Literal) -> bytes:
    number = literal.number
    return orjson.dumps(
        [
            literal.text,
            str(number) if number is not None else None,
            literal.truth,
            literal.nan,
            literal.anything,
            literal.glob,
            literal.quoted,
        ]
    )


__all__ = ["Places", "Sql", "compile_filter", "sort_value", "value_test"]
