"""Statistics of a record's tensors: one by its name, of all tensors, packed."""

from array import array
from collections.abc import Sequence

import orjson

from collector.records import NON_FINITE, Json


def collected(stats: Json, name: str) -> tuple[tuple[str, ...], list[Json]]:
    """The names of the tensors that have a statistic, and its values."""
    names: list[str] = []
    values: list[Json] = []
    for tensor, measured in stats.items() if isinstance(stats, dict) else ():
        value = statistic_of(measured, name)
        if value is not None:
            names.append(tensor)
            values.append(value)
    return tuple(names), values


def statistic_of(measured: Json, name: str) -> Json:
    """A statistic of a tensor by its dotted path, whose names may have dots."""
    if not isinstance(measured, dict):
        return None
    if name in measured:
        return measured[name]
    if "." not in name:
        return None
    for place in (place for place, character in enumerate(name) if character == "."):
        found = statistic_of(measured.get(name[:place]), name[place + 1 :])
        if found is not None:
            return found
    return None


def packed(values: Sequence[Json]) -> bytes | str:
    """Numbers as doubles; anything else as JSON."""
    numbers = [NON_FINITE.get(value, value) if isinstance(value, str) else value for value in values]
    if all(type(number) in (int, float) for number in numbers):
        try:
            return array("d", numbers).tobytes()  # type: ignore[type-var]
        except OverflowError:
            pass
    return orjson.dumps(values).decode()


__all__ = ["collected", "packed", "statistic_of"]
