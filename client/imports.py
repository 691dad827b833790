"""What became of lines that were given to a collector."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ImportReport:
    """How many lines were added, were there already, and were not taken; `reasons` of the first of these."""

    imported: int
    already_present: int
    rejected: int
    reasons: tuple[str, ...] = ()


def import_report_from(response: Any) -> ImportReport:
    """The collector's answer (`qlog.v1.ImportExperimentsResponse`) as a value."""
    return ImportReport(
        imported=response.imported,
        already_present=response.already_present,
        rejected=response.rejected,
        reasons=tuple(f"line {rejection.line}: {rejection.reason}" for rejection in response.rejections),
    )


__all__ = ["ImportReport", "import_report_from"]
