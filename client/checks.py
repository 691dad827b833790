"""What a check of the store found, as frozen values."""

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from qlog.v1 import collector_pb2 as pb

Severity: TypeAlias = Literal["notice", "warning", "error"]
_KNOWN: tuple[Severity, ...] = ("notice", "warning", "error")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes:
        kind: such as "corrupt_line".
        severity: "notice": nothing is wrong now; "warning": nothing acknowledged is known to be lost; "error":
            something that was stored cannot be read.
        file: its name in the log directory.
        offset: in bytes; None where it concerns a whole file.
        number: of the line; None where it is none of the log.
    """

    kind: str
    severity: Severity
    file: str
    offset: int | None
    number: int | None
    experiment_id: str
    message: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """All findings, and how much was read; `counts` by name, as "lines" and "bytes"."""

    findings: tuple[Finding, ...]
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def damaged(self) -> bool:
        """Something is wrong now."""
        return any(finding.severity != "notice" for finding in self.findings)


def finding_from(message: Any) -> Finding:
    """One finding (`qlog.v1.Finding`); a severity that this version does not know is an error."""
    severity = _word(pb.FindingSeverity, "FINDING_SEVERITY_", message.severity)
    return Finding(
        kind=_word(pb.FindingKind, "FINDING_KIND_", message.kind),
        severity=next((known for known in _KNOWN if known == severity), "error"),
        file=message.file,
        offset=message.offset if message.HasField("offset") else None,
        number=message.number if message.HasField("number") else None,
        experiment_id=message.experiment_id,
        message=message.message,
    )


def counts_from(summary: Any) -> dict[str, int]:
    """How much was read (`qlog.v1.CheckSummary`)."""
    return {entry.name: getattr(summary, entry.name) for entry in pb.CheckSummary.DESCRIPTOR.fields}


def _word(kinds: EnumTypeWrapper, prefix: str, value: int) -> str:
    known = kinds.DESCRIPTOR.values_by_number.get(value)
    return known.name.removeprefix(prefix).lower() if known else str(value)


__all__ = ["CheckReport", "Finding", "Severity", "counts_from", "finding_from"]
