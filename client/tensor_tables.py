"""The statistics of an experiment's tensors as tables."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from client.documents import Column, Row, Table
from client.labels import label
from client.text import as_text, escape, percent

_REORDER_KEYS = frozenset(
    (
        *("before_reorder", "after_reorder", "range_reduction_pct", "range_reduction_grouping_only_pct"),
        *("n_groups", "definition"),
    )
)
_DISTRIBUTION_KEYS = ("count", "absmax", "mean", "std", "median", "p99", "saturated_ratio", "bits", "observer")
_KNOWN = frozenset(
    (
        *("before_percentile", "after_percentile", "percentile_alpha", "clipped_ratio", "range_reduction"),
        *("measured_clipped_ratio", "scale", "sqnr_db"),
        *_DISTRIBUTION_KEYS,
        *_REORDER_KEYS,
    )
)


def interval_text(interval: Any) -> str:
    """[min, max]."""
    if not isinstance(interval, Mapping):
        return as_text(interval)
    return f"[{as_text(interval.get('min'))}, {as_text(interval.get('max'))}]"


def range_of(tensor: Mapping[str, Any] | None, key: str) -> Any:
    """The range of one of a tensor's intervals; None where there is none."""
    interval = None if tensor is None else tensor.get(key)
    return interval.get("range") if isinstance(interval, Mapping) else None


def tensor_tables(tensors: Mapping[str, Any]) -> Iterator[Table]:
    """What clipping did to each tensor; then how its values are distributed."""
    told = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, Mapping)}
    if not told:
        return
    yield _table(
        label("activation_statistics"),
        told,
        (
            (label("before_clipping"), lambda tensor: interval_text(tensor.get("before_percentile"))),
            (label("range"), lambda tensor: as_text(range_of(tensor, "before_percentile"))),
            (label("after_clipping"), lambda tensor: interval_text(tensor.get("after_percentile"))),
            (label("range"), lambda tensor: as_text(range_of(tensor, "after_percentile"))),
            (label("range_reduction"), lambda tensor: percent(tensor.get("range_reduction"))),
            (label("alpha"), lambda tensor: as_text(tensor.get("percentile_alpha"))),
            (label("clipped"), lambda tensor: percent(tensor.get("clipped_ratio"), 4)),
            (label("measured"), lambda tensor: percent(tensor.get("measured_clipped_ratio"), 4)),
            (label("scale"), lambda tensor: as_text(tensor.get("scale"))),
            (label("sqnr"), lambda tensor: as_text(tensor.get("sqnr_db"))),
        ),
    )
    there = [key for key in _DISTRIBUTION_KEYS if any(key in tensor for tensor in told.values())]
    if there:
        yield _table(label("distribution"), told, [(key, _value(key)) for key in there])


def reorder_table(tensors: Mapping[str, Any]) -> Iterator[Table]:
    """What reordering did to each tensor that was reordered."""
    told = {
        name: tensor
        for name, tensor in tensors.items()
        if isinstance(tensor, Mapping) and not _REORDER_KEYS.isdisjoint(tensor)
    }
    if told:
        yield _table(
            "",
            told,
            (
                (label("range_before"), lambda tensor: as_text(range_of(tensor, "before_reorder"))),
                (label("range_after"), lambda tensor: as_text(range_of(tensor, "after_reorder"))),
                (f"{label('range_reduction')} (%)", _value("range_reduction_pct")),
                (f"{label('grouping_only')} (%)", _value("range_reduction_grouping_only_pct")),
                (label("groups"), _value("n_groups")),
            ),
        )


def user_table(tensors: Mapping[str, Any]) -> Iterator[Table]:
    """Statistics of the user's own: whatever else the tensors have."""
    told = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, Mapping) and set(tensor) - _KNOWN}
    keys = user_keys(told.values())
    if keys:
        yield _table(label("user_statistics"), told, [(escape(key), _value(key)) for key in keys])


def user_keys(tensors: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names of statistics that are not the program's own, in the order in which they come."""
    return list(dict.fromkeys(key for tensor in tensors for key in tensor if key not in _KNOWN))


def _value(key: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda tensor: as_text(tensor.get(key))


def _table(
    title: str,
    tensors: Mapping[str, Mapping[str, Any]],
    columns: Sequence[tuple[str, Callable[[Mapping[str, Any]], str]]],
) -> Table:
    rows = (Row((escape(name), *(text(tensor) for _, text in columns))) for name, tensor in tensors.items())
    headings = (Column(label("tensor")), *(Column(heading, right=True) for heading, _ in columns))
    return Table(headings, tuple(rows), title)


__all__ = ["interval_text", "range_of", "reorder_table", "tensor_tables", "user_keys", "user_table"]
