"""What a user sees of a running experiment, on standard error: a bar on a terminal, sparse lines elsewhere.

Or entries of a log in JSON, for whoever reads them by a program.
"""

import sys
import threading
import time
from typing import TextIO

from qlog.v1.escaping import escape

from quamba.reports import LayerReport, ProgressReport
from quantizer.events import ExperimentEvent, LayerMeasured, Progressed

BAR_WIDTH = 30
BAR_EVERY_S = 0.1
LINE_EVERY_S = 30.0


class Console:
    """Shows progress and warnings. Safe for threads.

    Args:
        verbose: each tensor's statistics too.
        stream: None: standard error.
        form: "text", or "json": entries of the log that `qlog.v1.logs` has set up.
        level: the least important that is shown: progress is "info", trouble a "warning".
    """

    def __init__(
        self, *, verbose: bool = False, stream: TextIO | None = None, form: str = "text", level: str = "info"
    ) -> None:
        self._json = form == "json"
        self._silent = level == "error"
        self._quiet = level in ("warning", "error")
        self._stream = stream if stream is not None else sys.stderr
        self._verbose = verbose
        self._terminal = self._stream.isatty() and not self._json
        self._lock = threading.Lock()
        self._phase = ""
        self._shown_at = 0.0
        self._bar_shown = False
        self._warned = False

    def show(self, event: ExperimentEvent) -> None:
        """One event, where it is worth showing."""
        match event:
            case Progressed(report):
                self._progress(report)
            case LayerMeasured(layer) if self._verbose:
                self.line(describe_layer(layer))
            case _:
                pass

    def warn_once(self, message: str) -> None:
        """The one warning that a user sees of recording, whatever else goes wrong."""
        with self._lock:
            if self._warned:
                return
            self._warned = True
        if self._json:
            self._log("warning", message)
        elif not self._silent:
            self._show(f"quantizer: warning: {message}")

    def line(self, text: str) -> None:
        """One line, above the bar where there is one."""
        if self._json:
            self._log("info", text)
        elif not self._quiet:
            self._show(text)

    def _show(self, text: str) -> None:
        with self._lock:
            self._clear_bar()
            self._write(escape(text) + "\n")

    def _log(self, level: str, text: str, **fields: object) -> None:
        # Loaded already, by whoever has set it up.
        import structlog

        getattr(structlog.stdlib.get_logger("quantizer.run"), level)(text, **fields)

    def end(self) -> None:
        """No bar any more."""
        with self._lock:
            self._clear_bar()

    def _progress(self, report: ProgressReport) -> None:
        if self._quiet:
            return
        now = time.monotonic()
        with self._lock:
            new_phase = report.phase != self._phase
            every = BAR_EVERY_S if self._terminal else LINE_EVERY_S
            last = report.total > 0 and report.done >= report.total
            if not (new_phase or now >= self._shown_at + every or (last and self._terminal)):
                return
            self._phase, self._shown_at = report.phase, now
            if self._json:
                told = {"phase": report.phase, "done": report.done, "total": report.total, "unit": report.unit}
                self._log("info", "progress", **told)
                return
            count = f"{report.done}/{report.total}" if report.total else f"{report.done}" if report.done else ""
            if self._terminal:
                filled = BAR_WIDTH * min(report.done, report.total) // report.total if report.total else 0
                bar = "#" * filled + "." * (BAR_WIDTH - filled)
                self._write(f"\r\x1b[K{report.phase:<28.28} [{bar}] {count} {report.unit}")
                self._bar_shown = True
            else:
                self._write(f"{report.phase}: {count} {report.unit}\n" if count else f"{report.phase}\n")

    def _clear_bar(self) -> None:
        if self._bar_shown:
            self._write("\r\x1b[K")
            self._bar_shown = False

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # Nobody reads it any more; the experiment goes on.
            self._terminal = False


def describe_layer(report: LayerReport) -> str:
    """One tensor's statistics in one line."""
    return (
        f"{report.name}: [{report.before.min:.4f}, {report.before.max:.4f}] -> "
        f"[{report.after.min:.4f}, {report.after.max:.4f}], clipped {report.measured_clipped_ratio:.5%}, "
        f"scale {report.scale:.6g}, SQNR {report.sqnr_db:.2f} dB ({report.observer}, alpha {report.percentile_alpha:g})"
    )


__all__ = ["Console", "describe_layer"]
