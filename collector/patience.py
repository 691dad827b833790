"""For how long an answer is still waited for: long questions look whether anyone does, and stop where nobody does."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from collector.errors import AbandonedError

# Steps of SQLite's virtual machine between two looks: some milliseconds.
_STEPS = 100_000


class Patience:
    """Somebody's patience.

    Args:
        waits: whether the answer is still waited for.
    """

    def __init__(self, waits: Callable[[], bool] = lambda: True) -> None:
        self._waits = waits

    def check(self) -> None:
        """Raise AbandonedError where nobody waits any more."""
        if not self._waits():
            raise AbandonedError("the call was given up: what has been read for it is kept for the next one")

    @contextmanager
    def during(self, connection: sqlite3.Connection) -> Iterator[None]:
        """Have what SQLite does meanwhile end in AbandonedError where nobody waits any more."""
        connection.set_progress_handler(lambda: not self._waits(), _STEPS)
        try:
            yield
        except sqlite3.OperationalError:
            self.check()
            raise
        finally:
            connection.set_progress_handler(None, 0)


ENDLESS = Patience()

__all__ = ["ENDLESS", "Patience"]
