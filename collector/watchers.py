"""Who follows which experiments, and how far each has read.

A watcher pulls: it reads stored events from its own cursor whenever something changed, at its own pace. Nothing is
queued for it, so a slow one costs neither memory nor the writer's time.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(eq=False)
class Watcher:
    """One who follows.

    Attributes:
        cursors: for each experiment followed, the position of the next event to be read.
        lines: None for one who follows what is in `cursors`. Else all experiments are followed that run, and all
            lines from this number on.
    """

    cursors: dict[str, int] = field(default_factory=dict)
    lines: int | None = None

    def behind(self, experiment_id: str, number: int, events: int) -> bool:
        """Whether it follows an experiment of which it has not read all events."""
        everything = self.lines is not None and number >= self.lines
        return self.cursors.get(experiment_id, 0 if everything else events) < events


class Watchers:
    """All watchers of a store, and the bell that rings for them."""

    def __init__(self) -> None:
        self._bell = threading.Condition()
        self._rung = 0
        self._watchers: set[Watcher] = set()

    def join(self, watcher: Watcher) -> None:
        """Begin to follow."""
        with self._bell:
            self._watchers.add(watcher)

    def leave(self, watcher: Watcher) -> None:
        """No longer follow."""
        with self._bell:
            self._watchers.discard(watcher)

    def changed(self) -> None:
        """Ring: some experiment has more events, or its line; or watchers are to look whether they should go."""
        with self._bell:
            self._rung += 1
            self._bell.notify_all()

    def rung(self) -> int:
        """How often the bell has rung; look before reading, and hand it to `wait`."""
        return self._rung

    def wait(self, rung: int, timeout_s: float, gone: Callable[[], bool]) -> None:
        """Wait until the bell rings after `rung`, the time is over, or `gone` holds when it rings."""
        with self._bell:
            self._bell.wait_for(lambda: self._rung != rung or gone(), timeout_s)

    def behind(self, experiment_id: str, number: int, events: int) -> bool:
        """Whether a watcher of that experiment, which has its line now, has not read all its events."""
        with self._bell:
            return any(watcher.behind(experiment_id, number, events) for watcher in self._watchers)


__all__ = ["Watcher", "Watchers"]
