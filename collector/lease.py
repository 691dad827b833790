"""Who has not been heard of for too long.

Times are this process's: a collector that was down, or whose clock was set, makes nobody overdue.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

DEFAULT_LEASE_S = 600.0


class Leases:
    """When each running experiment is given up unless it is heard of.

    Args:
        lease_s: how long after the last sign of life.
        names: of those that run now; their time begins now.
        clock: in seconds.
    """

    def __init__(self, lease_s: float, names: Iterable[str] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self.lease_s = lease_s
        self._clock = clock
        # The first to be given up first: each is moved to the end when it is heard of.
        self._due: OrderedDict[str, float] = OrderedDict()
        for name in names:
            self.heard(name)

    def heard(self, name: str) -> None:
        """A sign of life."""
        self._due[name] = self._clock() + self.lease_s
        self._due.move_to_end(name)

    def forget(self, name: str) -> None:
        """It has ended."""
        self._due.pop(name, None)

    def put_off(self, name: str, seconds: float) -> None:
        """Ask again in a while: it could not be given up now."""
        self._due[name] = self._clock() + seconds
        self._due.move_to_end(name, last=False)

    def overdue(self) -> list[str]:
        """Those to be given up now."""
        now = self._clock()
        found = []
        for name, due in self._due.items():
            if due > now:
                break
            found.append(name)
        return found

    def wait_s(self) -> float | None:
        """Seconds until the next may be overdue; None where nobody can be."""
        first = next(iter(self._due.values()), None)
        return None if first is None else max(0.0, first - self._clock())


__all__ = ["DEFAULT_LEASE_S", "Leases"]
