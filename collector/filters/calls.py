"""Functions on the left of a comparison: of tensors, and of parts of a timestamp."""

from collector.filters.comparisons import Right, each
from collector.filters.conditions import DATE_PARTS, ORDERING, Condition, Layers, Reading, Test
from collector.filters.fields import resolve, resolve_statistic
from collector.filters.literals import literal_of, text_literal
from collector.filters.syntax import Call, Word
from collector.filters.times import wall_time_in


def called(call: Call, operator: str, right: Right, reading: Reading) -> Condition:
    """A function compared with a value; or alone, where that means something.

    Raises:
        FilterError: there is no such function, or it takes something else.
    """
    name = call.name.lower()
    if name == "anylayer":
        return _any_layer(call, operator, right, reading)
    if name in DATE_PARTS or name == "date":
        return _date_part(call, operator, right, reading)
    raise reading.wrong(
        f"no function {call.name}() can stand here: there are anyLayer, date, {', '.join(DATE_PARTS)}", call.span
    )


def _any_layer(call: Call, operator: str, right: Right, reading: Reading) -> Condition:
    words = [argument for argument in call.arguments if isinstance(argument, Word)]
    if len(words) != 2 or len(call.arguments) != 2:
        raise reading.wrong('anyLayer takes two texts: anyLayer("*.x_proj:input", "clipped_ratio")', call.span)
    pattern = words[0].text
    statistic = resolve_statistic(words[1].text, reading.catalogue, reading.text, words[1].span)
    if not operator:
        return Layers(pattern, statistic, ":", literal_of("*", quoted=False))

    def test(value: Word | Call) -> Condition:
        if isinstance(value, Call):
            raise reading.wrong("a value has to stand here, not a function", value.span)
        literal = literal_of(value.text, quoted=value.quoted)
        if operator in ORDERING and literal.number is None:
            raise reading.wrong(f"{operator} needs a number, {value.text!r} is none", value.span)
        if literal.null:
            raise reading.wrong("statistics that are not there match nothing: NOT anyLayer(...)", value.span)
        return Layers(pattern, statistic, operator, literal)

    return each(right, test, reading)


def _date_part(call: Call, operator: str, right: Right, reading: Reading) -> Condition:
    argument = call.arguments[0] if len(call.arguments) == 1 else None
    if not isinstance(argument, Word):
        raise reading.wrong(f"{call.name} takes a field: {call.name}(timestamp)", call.span)
    field = resolve(argument.text, reading.catalogue, reading.text, argument.span)
    if field.column != "timestamp":
        raise reading.wrong(f"{call.name} is of timestamp, not of {field.name}", argument.span)
    if not operator:
        raise reading.wrong(f"{call.name}({argument.text}) has to be compared with something", call.span)
    name = call.name.lower()

    def test(value: Word | Call) -> Condition:
        if name == "date":
            return Test(field, operator, text_literal(wall_time_in(value, reading)[:10]), part=name)
        literal = None if isinstance(value, Call) else literal_of(value.text, quoted=value.quoted)
        if literal is None or literal.number is None:
            raise reading.wrong(f"{call.name}({argument.text}) is a number", value.span)
        return Test(field, operator, literal, part=name)

    return each(right, test, reading)


__all__ = ["called"]
