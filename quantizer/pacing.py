"""When a sender sends next: what gathers, how long after failures it waits. No threads and no clock: times are told."""

import random
from dataclasses import dataclass, field

GATHER_S = 0.25
GATHER_EVENTS = 64
BACKOFF_FIRST_S = 0.25
BACKOFF_MOST_S = 30.0


@dataclass
class Pacing:
    """Events gather for GATHER_S or until there are GATHER_EVENTS; failures double the wait, with jitter.

    Attributes:
        failures: attempts that failed since the last that did not.
    """

    failures: int = 0
    _fresh: int = 0
    _urgent: bool = True
    _gathering_since: float | None = None
    _retry_at: float = 0.0
    # Of its own: the experiment's seed stays untouched.
    _jitter: random.Random = field(default_factory=random.Random)

    def add(self, count: int, now: float, *, urgent: bool) -> None:
        """There are `count` more events; urgent ones do not wait for others."""
        self._fresh += count
        self._urgent = self._urgent or urgent
        if self._fresh and self._gathering_since is None:
            self._gathering_since = now

    def wait_s(self, now: float, heartbeat_at: float) -> float:
        """Seconds until there is something to do; 0: now."""
        at = heartbeat_at
        if self._gathering_since is not None:
            at = min(at, self._gathering_since + GATHER_S)
        if self._urgent or self._fresh >= GATHER_EVENTS:
            at = now
        return max(0.0, max(at, self._retry_at) - now)

    def begin(self) -> None:
        """What there is is being sent."""
        self._fresh, self._urgent, self._gathering_since = 0, False, None

    def succeed(self) -> None:
        """It was."""
        self.failures = 0

    def fail(self, now: float, *, at_once: bool) -> None:
        """It was not; tried again after a while, or at once the first time where that may help."""
        self.failures += 1
        longest = min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2 ** min(self.failures - 1, 10))
        delay_s = 0.0 if at_once and self.failures == 1 else longest * self._jitter.uniform(0.5, 1.0)
        self._retry_at = now + delay_s
        self._urgent = True

    def hurry(self) -> None:
        """Try now, whatever failed before."""
        self.failures, self._retry_at, self._urgent = 0, 0.0, True


__all__ = ["BACKOFF_MOST_S", "GATHER_EVENTS", "GATHER_S", "Pacing"]
