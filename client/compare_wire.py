"""A comparison from the collector's messages to the client's values."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from qlog.v1 import collector_pb2

from client import record_wire
from client.comparisons import Cell, Comparison, ConfigRow, MetricCell, MetricRow, TensorRow, Unit
from client.wire import experiment_from

# A unit that this version does not know is shown as it comes.
UNITS: Mapping[collector_pb2.MetricUnit, Unit] = {
    collector_pb2.METRIC_UNIT_UNSPECIFIED: "plain",
    collector_pb2.METRIC_UNIT_FRACTION: "fraction",
    collector_pb2.METRIC_UNIT_BYTES: "bytes",
    collector_pb2.METRIC_UNIT_PLAIN: "plain",
}
_CELL = tuple(field.name for field in fields(MetricCell))


def _config_row(message: collector_pb2.ConfigRow) -> ConfigRow:
    cells = tuple(
        Cell(present=True, value=record_wire.json_value(cell.value)) if cell.HasField("value") else Cell(present=False)
        for cell in message.cells
    )
    return ConfigRow(key=message.key, cells=cells, differs=message.differs)


def _metric_cell(message: collector_pb2.MetricCell, unit: Unit) -> MetricCell:
    known = record_wire.present(message, _CELL)
    if unit == "bytes":
        known = {name: _whole(value) for name, value in known.items()}
    return MetricCell(**known)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _metric_row(message: collector_pb2.MetricRow) -> MetricRow:
    unit = UNITS.get(message.unit, "plain")
    cells = tuple(_metric_cell(cell, unit) for cell in message.cells)
    return MetricRow(name=message.name, unit=unit, cells=cells, differs=message.differs)


def _tensor_row(message: collector_pb2.TensorRow) -> TensorRow:
    cells = tuple(record_wire.tensor_record(cell.stats) if cell.HasField("stats") else None for cell in message.cells)
    return TensorRow(name=message.name, cells=cells, differs=message.differs)


def comparison_from(message: collector_pb2.CompareExperimentsResponse) -> Comparison:
    """Experiments side by side."""
    return Comparison(
        experiments=tuple(experiment_from(experiment) for experiment in message.experiments),
        config=tuple(_config_row(row) for row in message.config),
        results=tuple(_metric_row(row) for row in message.results),
        tensors=tuple(_tensor_row(row) for row in message.tensors),
    )


__all__ = ["UNITS", "comparison_from"]
