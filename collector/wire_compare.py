"""A comparison's rows on the wire."""

from collections.abc import Mapping, Sequence

from qlog.v1 import collector_pb2
from qlog.v1 import common_pb2 as pb

from collector.compare import Comparison, ConfigRow, MetricCell, MetricRow, TensorRow, Unit
from collector.wire_stats import stats_from_json
from collector.wire_values import value_from_json

UNITS: Mapping[Unit, collector_pb2.MetricUnit] = {
    Unit.FRACTION: collector_pb2.METRIC_UNIT_FRACTION,
    Unit.BYTES: collector_pb2.METRIC_UNIT_BYTES,
    Unit.PLAIN: collector_pb2.METRIC_UNIT_PLAIN,
}


def comparison_to_wire(
    comparison: Comparison, experiments: Sequence[pb.Experiment]
) -> collector_pb2.CompareExperimentsResponse:
    """The response for a comparison of these experiments (BASIC view)."""
    return collector_pb2.CompareExperimentsResponse(
        experiments=experiments,
        config=[_config_row(row) for row in comparison.config],
        results=[_metric_row(row) for row in comparison.results],
        tensors=[_tensor_row(row) for row in comparison.tensors],
    )


def _config_row(row: ConfigRow) -> collector_pb2.ConfigRow:
    cells = [
        collector_pb2.ConfigCell(value=value_from_json(values[0])) if values else collector_pb2.ConfigCell()
        for values in row.values
    ]
    return collector_pb2.ConfigRow(key=row.key, cells=cells, differs=row.differs)


def _metric_row(row: MetricRow) -> collector_pb2.MetricRow:
    cells = [_metric_cell(cell) for cell in row.cells]
    return collector_pb2.MetricRow(name=row.name, unit=UNITS[row.unit], cells=cells, differs=row.differs)


def _metric_cell(cell: MetricCell) -> collector_pb2.MetricCell:
    return collector_pb2.MetricCell(
        value=cell.value,
        stderr=cell.stderr,
        difference=cell.difference,
        difference_stderr=cell.difference_stderr,
        exceeds_stderr=cell.exceeds_stderr,
    )


def _tensor_row(row: TensorRow) -> collector_pb2.TensorRow:
    messages = [None if stats is None else stats_from_json(row.name, stats) for stats in row.stats]
    cells = [collector_pb2.TensorCell(stats=message) for message in messages]
    return collector_pb2.TensorRow(name=row.name, cells=cells, differs=row.differs)


__all__ = ["UNITS", "comparison_to_wire"]
