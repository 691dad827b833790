"""Lines that appear while something goes on: progress in one line that changes on a terminal, thinned out elsewhere."""

import shutil
from typing import TextIO

from client.text import width
from client.values import Progress

# Where every line stays, a phase is told at its start and at each of so many equal parts of it.
_STEPS = 10
_CLEAR_LINE = "\r\x1b[K"


class LiveLines:
    """Writes lines at once, each as it comes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._changing = False
        self._steps: dict[str, tuple[str, int]] = {}

    def line(self, text: str) -> None:
        """One line that stays."""
        self._write(f"{text}\n")
        self._changing = False

    def progress(self, source: str, progress: Progress, text: str) -> None:
        """How far `source` has come: on a terminal in place of what it said before."""
        if self._terminal:
            self._write(_fitting(text, shutil.get_terminal_size().columns - 1))
            self._changing = True
            return
        step = progress.done * _STEPS // progress.total if progress.total else 0
        if self._steps.get(source) != (progress.phase, step):
            self._steps[source] = (progress.phase, step)
            self.line(text)

    def close(self) -> None:
        """Leave the terminal with a clean line."""
        if self._changing:
            self._write("")
            self._changing = False

    def _write(self, text: str) -> None:
        self._stream.write(_CLEAR_LINE + text if self._changing else text)
        self._stream.flush()


def _fitting(text: str, columns: int) -> str:
    while width(text) > columns:
        text = text[:-1]
    return text


__all__ = ["LiveLines"]
