"""Experiments side by side: configuration, results, ranges of each tensor."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

from client.columns import COLUMNS, config_text, experiment_data
from client.comparisons import Cell, Comparison, ConfigRow, MetricCell, MetricRow, TensorRow
from client.documents import Column, Flat, Note, Output, Row, Section, Table
from client.labels import label
from client.tensor_tables import interval_text, range_of, user_keys
from client.text import as_text, escape, fixed, number, percent, signed, size
from client.values import Experiment, Record

_ABOUT = ("number", "id", "time", "model", "bits", "alpha", "status")
_RANGES = ("before_percentile", "after_percentile")


def compare_output(comparison: Comparison, *, everything: bool) -> Output:
    """A comparison; `everything`: rows that are equal too (JSON and CSV always have them)."""
    return Output(tuple(_sections(comparison, everything)), _data(comparison), _flat(comparison))


def _names(experiments: Sequence[Experiment]) -> tuple[str, ...]:
    return tuple(escape(experiment.name) for experiment in experiments)


def _sections(comparison: Comparison, everything: bool) -> Iterator[Section]:
    names = _names(comparison.experiments)
    about = [COLUMNS[name] for name in _ABOUT]
    rows = (tuple(column.text(column.value(experiment)) for column in about) for experiment in comparison.experiments)
    yield Table(
        tuple(Column(label(column.name), column.right) for column in about), tuple(map(Row, rows)), label("experiments")
    )
    config = tuple(_config_row(row) for row in comparison.config if everything or row.differs)
    if config:
        yield Table((Column(label("key")), *map(Column, names)), config, label("configuration"))
    results = tuple(_metric_row(row) for row in comparison.results if everything or row.differs)
    if results:
        others = chain.from_iterable((Column(name, True), Column(label("difference"), True)) for name in names[1:])
        yield Table((Column(label("metric")), Column(names[0], True), *others), results, label("results_compared"))
    tensors = tuple(_tensor_row(row) for row in comparison.tensors if everything or row.differs)
    if tensors:
        headings = ("range_before", "range_after", "range_reduction")
        columns = (Column(label(heading), True, group=name) for name in names for heading in headings)
        yield Table((Column(label("tensor")), *columns), tensors, label("activation_statistics"))
    yield from _user_tables(comparison, names, everything)
    if not config and not results and not tensors:
        yield Note(label("no_differences"))


def _user_tables(comparison: Comparison, names: Sequence[str], everything: bool) -> Iterator[Table]:
    """Statistics of the user's own: a column for each of them and each experiment."""
    shown = [row for row in comparison.tensors if everything or row.differs]
    keys = user_keys(tensor for row in shown for tensor in row.cells if tensor is not None)
    rows = []
    for row in shown:
        if any(tensor is not None and not set(keys).isdisjoint(tensor) for tensor in row.cells):
            told = [tuple(_user_text(tensor, key) for key in keys) for tensor in row.cells]
            rows.append(Row((escape(row.name), *chain.from_iterable(told)), marked=len(set(told)) > 1))
    if rows:
        columns = (Column(escape(key), True, group=name) for name in names for key in keys)
        yield Table((Column(label("tensor")), *columns), tuple(rows), label("user_statistics"))


def _user_text(tensor: Record | None, key: str) -> str:
    return label("absent") if tensor is None else as_text(tensor.get(key))


def _config_row(row: ConfigRow) -> Row:
    return Row((escape(row.key), *(_cell_text(row.key, cell) for cell in row.cells)), marked=row.differs)


def _cell_text(key: str, cell: Cell) -> str:
    return config_text(key, cell.value) if cell.present else label("absent")


def _metric_row(row: MetricRow) -> Row:
    first, *others = row.cells
    compared = chain.from_iterable((_value_text(cell, row), _difference_text(cell, row)) for cell in others)
    return Row((escape(row.name), _value_text(first, row), *compared), marked=row.differs)


def _value_text(cell: MetricCell, row: MetricRow) -> str:
    if cell.value is None:
        return label("absent")
    if row.unit == "bytes":
        return size(cell.value)
    error = "" if cell.stderr is None else f" ± {_error_text(cell.stderr, None)}"
    return as_text(cell.value) + error


def _error_text(error: float, places: int | None) -> str:
    return number(error, 4) if places is None else fixed(error, places)


def _difference_text(cell: MetricCell, row: MetricRow) -> str:
    """ "-1.25 points ± 0.90 (exceeds its standard error)"."""
    if cell.difference is None:
        return as_text(None)
    if row.unit == "bytes":
        return size(cell.difference, sign="+")
    places = 2 if row.unit == "fraction" else None
    unit = f" {label('points')}" if row.unit == "fraction" else ""
    error = "" if cell.difference_stderr is None else f" ± {_error_text(cell.difference_stderr, places)}"
    verdict = "" if cell.exceeds_stderr is None else f" ({label('exceeds' if cell.exceeds_stderr else 'within')})"
    return f"{signed(cell.difference, places)}{unit}{error}{verdict}"


def _tensor_row(row: TensorRow) -> Row:
    cells = chain.from_iterable(_tensor_cells(tensor) for tensor in row.cells)
    return Row((escape(row.name), *cells), marked=row.differs)


def _tensor_cells(tensor: Record | None) -> tuple[str, str, str]:
    if tensor is None:
        return (label("absent"), label("absent"), label("absent"))
    before, after = (_range_text(tensor, key) for key in _RANGES)
    return before, after, percent(tensor.get("range_reduction"))


def _range_text(tensor: Record, key: str) -> str:
    """ "284.17 [-127.35, 156.82]"."""
    interval = tensor.get(key)
    return as_text(None) if interval is None else f"{as_text(range_of(tensor, key))} {interval_text(interval)}"


def _data(comparison: Comparison) -> dict[str, Any]:
    return {
        "experiments": [experiment_data(experiment) for experiment in comparison.experiments],
        "config": [
            {
                "key": row.key,
                "differs": row.differs,
                "cells": [{"value": cell.value} if cell.present else {} for cell in row.cells],
            }
            for row in comparison.config
        ],
        "results": [
            {
                "name": row.name,
                "unit": row.unit,
                "differs": row.differs,
                "cells": [_metric_data(cell) for cell in row.cells],
            }
            for row in comparison.results
        ],
        "tensors": [
            {"name": row.name, "differs": row.differs, "cells": [{} if cell is None else cell for cell in row.cells]}
            for row in comparison.tensors
        ],
    }


def _metric_data(cell: MetricCell) -> dict[str, Any]:
    return {name: value for name, value in asdict(cell).items() if value is not None}


def _flat(comparison: Comparison) -> Flat:
    """One line a row; differences to the first experiment beside the values of the others."""
    names = [experiment.name for experiment in comparison.experiments]
    kinds = ("difference", "difference_stderr", "exceeds_stderr")
    more = [f"{kind} {name}" for name in names[1:] for kind in kinds]
    empty = (None,) * len(more)
    rows: list[tuple[Any, ...]] = [
        ("config", row.key, row.differs, *(cell.value for cell in row.cells), *empty) for row in comparison.config
    ]
    for metric in comparison.results:
        values = (cell.value for cell in metric.cells)
        compared = (getattr(cell, kind) for cell in metric.cells[1:] for kind in kinds)
        rows.append(("results", metric.name, metric.differs, *values, *compared))
    own = user_keys(cell for tensor in comparison.tensors for cell in tensor.cells if cell is not None)
    for tensor in comparison.tensors:
        for key in (*_RANGES, "range_reduction", *own):
            values = (_plain(cell, key) for cell in tensor.cells)
            rows.append(("tensors", f"{tensor.name} {key}", tensor.differs, *values, *empty))
    return Flat(("section", "name", "differs", *names, *more), rows)


def _plain(tensor: Record | None, key: str) -> Any:
    if tensor is None:
        return None
    return range_of(tensor, key) if key in _RANGES else tensor.get(key)


__all__ = ["compare_output"]
