"""Which calls there are: streams are counted and bounded, and a server that stops takes no more."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from collector import errors


class Gate:
    """Counts streams, and knows when the server stops.

    Args:
        max_streams: at a time; each holds a thread for as long as it lasts.
    """

    def __init__(self, max_streams: int) -> None:
        self._max_streams = max_streams
        self._streams = 0
        self._calls = 0
        self._draining = False
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._wakers: list[Callable[[], None]] = []

    def streams(self) -> tuple[int, int]:
        """How many there are, and how many there may be."""
        return self._streams, self._max_streams

    @contextmanager
    def call(self) -> Iterator[None]:
        """Count a call, stream or not, while it lasts."""
        with self._lock:
            self._calls += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1
                self._idle.notify_all()

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no call is left; whether that is so."""
        with self._lock:
            return self._idle.wait_for(lambda: self._calls == 0, timeout_s)

    def draining(self) -> bool:
        """Whether the server is stopping."""
        return self._draining

    def drain(self) -> None:
        """From now on calls are refused, and streams end."""
        with self._lock:
            self._draining = True
            wakers = list(self._wakers)
        for wake in wakers:
            wake()

    @contextmanager
    def waker(self, wake: Callable[[], None]) -> Iterator[None]:
        """Have `wake` called when the server stops, at once if it does already."""
        with self._lock:
            self._wakers.append(wake)
            draining = self._draining
        if draining:
            wake()
        try:
            yield
        finally:
            with self._lock:
                self._wakers.remove(wake)

    def check(self) -> None:
        """Raise DrainingError where the server is stopping."""
        if self._draining:
            raise errors.DrainingError("the collector is stopping: try again in a moment")

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Take one of the streams."""
        with self._lock:
            if self._streams >= self._max_streams:
                raise errors.TooManyStreamsError(
                    f"all {self._max_streams} streams of this collector are taken: try again later"
                )
            self._streams += 1
        try:
            yield
        finally:
            with self._lock:
                self._streams -= 1


__all__ = ["Gate"]
