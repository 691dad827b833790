"""What a filter means: its names looked up (`fields`), its values read (`literals`, `times`)."""

import time

from collector.filters.calls import called
from collector.filters.comparisons import check_foreign, compared, each
from collector.filters.conditions import Condition, Joined, Reading, Words
from collector.filters.fields import Catalogue, resolve
from collector.filters.literals import literal_of
from collector.filters.syntax import Call, Group, Node, Word


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
    return None if node is None else _condition(node, Reading(text, catalogue, now))


def _condition(node: Node, reading: Reading) -> Condition:
    if isinstance(node, Group):
        return Joined(node.joined_by, tuple(_condition(part, reading) for part in node.parts))
    left, operator = node.left, node.operator
    if isinstance(left, Call):
        return called(left, operator, node.right, reading)
    if not operator:
        return _words(left, reading)
    field = resolve(left.text, reading.catalogue, reading.text, left.span)
    return each(node.right, lambda value: compared(field, operator, value, reading), reading)


def _words(word: Word, reading: Reading) -> Condition:
    check_foreign(word, reading)
    literal = literal_of(word.text, quoted=word.quoted)
    return Words(literal.text, literal.glob)


def current_time() -> float:
    """What relative times in filters are relative to."""
    return time.time()


__all__ = ["current_time", "read_filter"]
