"""The time that each phase of an experiment took."""

import time


class PhaseClock:
    """One phase at a time; a phase that is entered again goes on counting."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._since = self._began
        self._current: str | None = None
        self._seconds: dict[str, float] = {}

    def enter(self, phase: str) -> None:
        """End the phase before, if any, and begin this one."""
        if phase != self._current:
            self._settle()
            self._current = phase
            self._seconds.setdefault(phase, 0.0)

    def phases(self) -> tuple[tuple[str, float], ...]:
        """(name, seconds) in the order in which they were first entered."""
        self._settle()
        return tuple((phase, round(seconds, 3)) for phase, seconds in self._seconds.items())

    def total_s(self) -> float:
        """Seconds since the clock was made."""
        return round(time.monotonic() - self._began, 3)

    def _settle(self) -> None:
        now = time.monotonic()
        if self._current is not None:
            self._seconds[self._current] += now - self._since
        self._since = now


__all__ = ["PhaseClock"]
