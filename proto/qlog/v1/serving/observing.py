"""What is known of a call: while it lasts, and when it is over, for those who are told of calls."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc

from qlog.v1.serving.access import Identity, Roles

# Of a stream, what its messages were about: more names than these are counted and not kept.
MOST_SUBJECTS = 8
# The fields that say what a request is about, in the order in which they are looked for.
_SUBJECT_FIELDS = ("experiment_id", "ref", "name", "refs")
# Of a filter or a name, this many characters.
_MOST_FILTER, _MOST_SUBJECT = 512, 128
_UNKNOWN = Identity("unknown", frozenset())


@dataclass(frozen=True, slots=True)
class Call:
    """A call that has ended.

    Attributes:
        method: as "/package.Service/Method".
        who: called; "anonymous" where nobody is asked, "unknown" where the answer was wrong.
        peer: the address that gRPC gives.
        code: how it ended.
        start_s: when it came, in seconds since 1970.
        duration_s: from its first byte to its last.
        certificate: the common name in the client's certificate that was verified; empty: there was none.
        trace: its `traceparent`, as W3C's Trace Context has it; empty: none.
        subjects: the experiments, references, jobs or models that it was about, the first of them.
        filter: of a query.
        requests: messages received.
        events: of experiments, among them.
    """

    method: str
    who: str
    roles: Roles
    peer: str
    code: grpc.StatusCode
    start_s: float
    duration_s: float
    certificate: str
    trace: str
    subjects: tuple[str, ...]
    filter: str
    requests: int
    events: int


class Observer(Protocol):
    """Is told of calls; must not raise, nor wait."""

    def began(self, method: str) -> None:
        """A call has come."""

    def ended(self, call: Call) -> None:
        """It is over."""


@dataclass(slots=True)
class Ticket:
    """What becomes known of a call while it lasts."""

    identity: Identity = _UNKNOWN
    certificate: str = ""
    subjects: dict[str, None] = field(default_factory=dict)
    filter: str = ""
    requests: int = 0
    events: int = 0

    def note(self, request: Any) -> Any:
        """Remember what a request is about; the request."""
        self.requests += 1
        for name in _SUBJECT_FIELDS:
            value = getattr(request, name, None)
            if value and len(self.subjects) < MOST_SUBJECTS:
                if isinstance(value, str):
                    self.subjects.setdefault(value[:_MOST_SUBJECT])
                else:
                    self.subjects.update((str(item)[:_MOST_SUBJECT], None) for item in value[:MOST_SUBJECTS])
        if self.requests == 1:
            self.filter = str(getattr(request, "filter", ""))[:_MOST_FILTER]
            if model := getattr(getattr(request, "spec", None), "model", ""):
                self.subjects.setdefault(str(model)[:_MOST_SUBJECT])
        events = getattr(request, "events", None)
        if events is not None:
            self.events += len(events)
        return request


__all__ = ["MOST_SUBJECTS", "Call", "Observer", "Ticket"]
