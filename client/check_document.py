"""What a check of the store found, to be shown."""

from collections.abc import Iterator
from dataclasses import asdict

from client.checks import CheckReport, Finding
from client.documents import Column, Facts, Flat, Note, Output, Row, Section, Table
from client.labels import label
from client.text import as_text, escape

_COLUMNS = ("severity", "kind", "file", "offset", "number", "experiment_id", "message")
_RIGHT = frozenset(("offset", "number"))
_HEADINGS = {"number": "number_of_line", "experiment_id": "id"}
_STYLES = {"error": "FAILED", "warning": "CANCELLED", "notice": ""}


def check_output(report: CheckReport) -> Output:
    """All findings, and how much was read."""
    rows = [tuple(getattr(finding, name) for name in _COLUMNS) for finding in report.findings]
    data = {"damaged": report.damaged, **report.counts, "findings": [asdict(finding) for finding in report.findings]}
    return Output(tuple(_sections(report)), data, Flat(_COLUMNS, rows))


def _sections(report: CheckReport) -> Iterator[Section]:
    yield Facts(tuple((escape(name.replace("_", " ")), str(count)) for name, count in report.counts.items()))
    if report.findings:
        columns = tuple(Column(label(_HEADINGS.get(name, name)), name in _RIGHT) for name in _COLUMNS)
        yield Table(columns, tuple(map(_row, report.findings)), label("findings"))
    else:
        yield Note(label("no_damage"))


def _row(finding: Finding) -> Row:
    cells = {name: as_text(getattr(finding, name) or None) for name in _COLUMNS}
    cells |= {name: as_text(getattr(finding, name)) for name in _RIGHT}
    return Row(tuple(cells[name] for name in _COLUMNS), style=_STYLES[finding.severity])


__all__ = ["check_output"]
