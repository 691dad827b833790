"""For how long a call may work: until its time is over, and as long as somebody waits for its answer.

Long work asks now and then (`check`); a question to the index asks through SQLite's progress handler (`over`). A call's
work is done by one thread, so what counts is the thread's own.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from collector.errors import GoneError, TooSlowError

# Instructions of SQLite's machine between two questions whether to go on: some ten milliseconds.
SQLITE_STEPS = 50_000


@dataclass(frozen=True, slots=True)
class _Patience:
    limit_s: float
    until: float
    gone: Callable[[], bool]

    def check(self) -> None:
        if self.gone():
            raise GoneError("nobody waits for the answer any more")
        if time.monotonic() >= self.until:
            raise TooSlowError(
                f"the answer takes longer than the {self.limit_s:g} s that a call without a deadline has: ask for "
                "less, or give it a deadline"
            )


_threads = threading.local()


@contextmanager
def patience(limit_s: float, gone: Callable[[], bool]) -> Iterator[None]:
    """Bound the work of this thread.

    Args:
        limit_s: from now; infinite: no bound.
        gone: whether nobody waits any more.
    """
    before = getattr(_threads, "patience", None)
    until = time.monotonic() + limit_s if math.isfinite(limit_s) else math.inf
    _threads.patience = _Patience(limit_s, until, gone)
    try:
        yield
    finally:
        _threads.patience = before


def check() -> None:
    """Go on, or not; outside a call, always.

    Raises:
        TooSlowError, GoneError: the call is to end.
    """
    bound: _Patience | None = getattr(_threads, "patience", None)
    if bound is not None:
        bound.check()


def over() -> bool:
    """Whether `check` would raise."""
    try:
        check()
    except (TooSlowError, GoneError):
        return True
    return False


def bounded() -> bool:
    """Whether this thread works for a call."""
    return getattr(_threads, "patience", None) is not None


__all__ = ["SQLITE_STEPS", "bounded", "check", "over", "patience"]
