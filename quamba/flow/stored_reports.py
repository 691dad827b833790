"""What a calibration reported, as plain values beside a saved model: told again when that is used again."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from quamba.reports import LayerReport, ReorderRange, ReorderRanges, ReorderReport, ValueRange


def stored_reports(reports: Sequence[LayerReport | ReorderReport]) -> dict[str, Any]:
    """Values that JSON has: numbers that are not finite as text."""
    return {
        "tensors": [_plain(asdict(report)) for report in reports if isinstance(report, LayerReport)],
        "reorder": next((_plain(asdict(report)) for report in reports if isinstance(report, ReorderReport)), None),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def reports_of(stored: Mapping[str, Any], layers: Collection[int]) -> list[LayerReport | ReorderReport]:
    """The inverse, for the tensors of these layers and of the head.

    Raises:
        KeyError, TypeError, ValueError: the values are no stored reports.
    """
    found: list[LayerReport | ReorderReport] = []
    for values in stored["tensors"]:
        layer = re.match(r"layer_(\d+)\.", values["name"])
        if layer is None or int(layer[1]) in layers:
            found.append(_layer(values))
    if stored["reorder"] is not None:
        found.append(ReorderReport(**_numbers(stored["reorder"])))
    return found


def _layer(values: Mapping[str, Any]) -> LayerReport:
    parts = {"before", "after", "statistics", "reorder"}
    return LayerReport(
        **_numbers({key: value for key, value in values.items() if key not in parts}),
        before=ValueRange(**_numbers(values["before"])),
        after=ValueRange(**_numbers(values["after"])),
        statistics=_numbers(values["statistics"]),
        reorder=None if values["reorder"] is None else _ranges(values["reorder"]),
    )


def _ranges(values: Mapping[str, Any]) -> ReorderRanges:
    sides = {name: ReorderRange(**_numbers(values[name])) for name in ("before", "after", "control")}
    return ReorderRanges(**_numbers({**values, **sides}))


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    texts = ("name", "observer")
    return {
        key: float(value) if isinstance(value, str) and key not in texts else value for key, value in values.items()
    }


__all__ = ["reports_of", "stored_reports"]
