"""What a user's REF names: a number, a number from the end, an id, or a unique prefix of one."""

import re

from collector.errors import AmbiguousRefError, InvalidRequestError, NotFoundError
from collector.index import Entry
from collector.store import Store

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)")
_PREFIX = re.compile(r"[0-9a-f-]+")
_MIN_PREFIX = 4
_SHOWN = 5
_LONGEST = 64


def resolve(store: Store, ref: str, field: str = "ref") -> Entry | str:
    """The line that a REF names, or the id of an experiment that runs.

    Args:
        store: to look in.
        ref: as the user typed it.
        field: of the request, for errors.

    Raises:
        InvalidRequestError: it is no REF.
        AmbiguousRefError: several ids begin so.
        NotFoundError: there is no such experiment.
    """
    text = ref.strip().lower()
    if len(ref) > _LONGEST:
        raise InvalidRequestError(field, f"{ref[:_LONGEST]!r}... is too long for a number or an id")
    index = store.index()
    if _NUMBER.fullmatch(text):
        number = int(text) + (index.count() if text.startswith("-") else 0)
        entry = index.by_number(number)
        if entry is not None:
            return entry
        if len(text) < _MIN_PREFIX or text.startswith("-"):
            raise NotFoundError(_no_number(text, index.count()))
    elif len(text) < _MIN_PREFIX or not (_PREFIX.fullmatch(text) or index.ids_with_prefix(text, 1)):
        raise InvalidRequestError(
            field,
            f"{ref!r} names no experiment: give its number (0, 1, ..., -1 for the last), its id, or at least the "
            f"first {_MIN_PREFIX} characters of that",
        )
    return _by_prefix(store, text, field)


def _by_prefix(store: Store, prefix: str, field: str) -> Entry | str:
    # Running ones first: one that ends between the two look-ups is then found twice, not never.
    running = [experiment_id for experiment_id in store.running() if experiment_id.startswith(prefix)]
    index = store.index()
    found = list(dict.fromkeys([*index.ids_with_prefix(prefix, _SHOWN + 1), *running]))
    if prefix in found:
        found = [prefix]
    if not found:
        count = index.count()
        if _NUMBER.fullmatch(prefix):
            raise NotFoundError(f"{_no_number(prefix, count)}, and no id begins with {prefix}")
        raise NotFoundError(f"no experiment has an id that begins with {prefix}")
    if len(found) > 1:
        shown = ", ".join(found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
        raise AmbiguousRefError(field, f"{prefix} is ambiguous: {shown}; give more characters")
    return index.by_id(found[0]) or found[0]


def _no_number(text: str, count: int) -> str:
    if count == 0:
        return f"there is no experiment {text}: none has been recorded yet"
    return f"there is no experiment {text}: the last one is {count - 1}"


__all__ = ["resolve"]
