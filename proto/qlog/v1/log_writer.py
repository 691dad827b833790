"""A log that nobody waits for: entries are written by a thread, so that a reader who stands still holds up no call."""

import logging
import os
import threading
from collections import deque

# Entries that wait; more are counted and lost.
MOST_WAITING = 10_000
# At the end of the process, for what waits.
_FLUSH_S = 1.0


class LogWriter(logging.Handler):
    """Writes entries to a file descriptor, in their order.

    Args:
        descriptor: written to directly: a thread that stands still in a write holds no lock of Python's files.
        most: entries that may wait.
    """

    def __init__(self, descriptor: int, most: int = MOST_WAITING) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._most = most
        self._waiting: deque[str] = deque()
        self._lost = 0
        self._writing = False
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Put an entry where the thread finds it."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - as logging's own handlers do
            self.handleError(record)
            return
        with self._changed:
            if len(self._waiting) >= self._most:
                self._lost += 1
            else:
                self._waiting.append(line)
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all is written, for a moment."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._writing, _FLUSH_S)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting)
                lines, lost = list(self._waiting), self._lost
                self._waiting.clear()
                self._lost, self._writing = 0, True
            if lost:
                record = logging.LogRecord("qlog.log", logging.WARNING, "", 0, "%d entries were lost", (lost,), None)
                lines.append(self.format(record))
            self._write("".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except OSError:  # Nobody reads it any more, or there is no room: there is nobody to tell.
                return


__all__ = ["MOST_WAITING", "LogWriter"]
