"""A comparison from the collector's messages to the client's values."""

from qlog.v1 import collector_pb2

from client import record_wire
from client.comparisons import Cell, Comparison, ConfigRow, MetricCell, MetricRow, TensorRow
from client.wire import experiment_from


def _config_row(message: collector_pb2.ConfigRow) -> ConfigRow:
    cells = tuple(
        Cell(present=True, value=record_wire.json_value(cell.value)) if cell.HasField("value") else Cell(present=False)
        for cell in message.cells
    )
    return ConfigRow(key=message.key, cells=cells, differs=message.differs)


def _metric_cell(message: collector_pb2.MetricCell) -> MetricCell:
    names = ("value", "stderr", "difference", "difference_stderr", "exceeds_stderr")
    known = record_wire.present(message, names)
    return MetricCell(**{"value": None, **known})


def _metric_row(message: collector_pb2.MetricRow) -> MetricRow:
    return MetricRow(
        name=message.name,
        is_fraction=message.unit == collector_pb2.METRIC_UNIT_FRACTION,
        cells=tuple(_metric_cell(cell) for cell in message.cells),
        differs=message.differs,
    )


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


__all__ = ["comparison_from"]
