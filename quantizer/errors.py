"""What can go wrong in the quantizer.

    QuantizerError                    exit code 1
    ├── SpecError                     what was asked for cannot be done as asked; exit code 2
    ├── ExperimentFailedError         an experiment ended with an error
    ├── ExperimentCancelledError      an experiment was stopped on request; exit code 130
    ├── SpoolError                    the spool cannot be used
    └── DeliveryError                 events cannot be sent to a collector
        ├── CollectorAwayError        it does not answer, or not now: trying again later helps
        │   └── ExperimentDelayedError    it answers, and cannot take one experiment's events now
        ├── ExperimentRefusedError    it refuses this experiment's events: trying again does not help
        └── OffsetGapError            it wants another offset than the one that was sent

Each message is one line: what was wrong, with the value, and what to do.
"""

from dataclasses import dataclass


class QuantizerError(Exception):
    """Base of all errors that the quantizer raises on purpose."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong with a specification: the field of ExperimentSpec, and a line that says what to do."""

    field: str
    message: str


class SpecError(QuantizerError):
    """What was asked for cannot be done as asked."""

    exit_code = 2

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        super().__init__("; ".join(violation.message for violation in violations))
        self.violations = violations


class ExperimentFailedError(QuantizerError):
    """An experiment ended with an error; its record says FAILED."""


class ExperimentCancelledError(QuantizerError):
    """An experiment was stopped on request; its record says CANCELLED."""

    exit_code = 130


class SpoolError(QuantizerError):
    """The spool cannot be used."""


class DeliveryError(QuantizerError):
    """Events cannot be sent to a collector."""


class CollectorAwayError(DeliveryError):
    """The collector does not answer, or not now: trying again later helps."""


class ExperimentDelayedError(CollectorAwayError):
    """The collector answers, and cannot take the events of one experiment now: others may pass."""


class ExperimentRefusedError(DeliveryError):
    """The collector refuses the events of one experiment: trying again does not help."""


class OffsetGapError(DeliveryError):
    """The collector wants another offset than the one that was sent."""


__all__ = [
    "CollectorAwayError",
    "DeliveryError",
    "ExperimentCancelledError",
    "ExperimentDelayedError",
    "ExperimentFailedError",
    "ExperimentRefusedError",
    "OffsetGapError",
    "QuantizerError",
    "SpecError",
    "SpoolError",
    "Violation",
]
