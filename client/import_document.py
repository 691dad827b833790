"""What became of imported lines, to be shown."""

from client.documents import Facts, Flat, Output
from client.imports import ImportReport
from client.labels import label

_COUNTS = ("imported", "already_present", "rejected")


def import_output(report: ImportReport) -> Output:
    """The counts of an import; JSON has the reasons too."""
    counts = {name: getattr(report, name) for name in _COUNTS}
    return Output(
        sections=(Facts(tuple((label(name), str(count)) for name, count in counts.items())),),
        data={**counts, "reasons": list(report.reasons)},
        flat=Flat(_COUNTS, [tuple(counts.values())]),
    )


__all__ = ["import_output"]
