"""Logging as it was: what a server that ran in this process set up, the next test does not see."""

import logging
import sys


def stop_logging() -> None:
    """Take back what `qlog.v1.logs.start_logging` did."""
    # Whoever has not called it has not imported it.
    if (logs := sys.modules.get("qlog.v1.logs")) is None:
        return
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler.formatter, logs.ProcessorFormatter):
            root.removeHandler(handler)
            root.setLevel(logging.WARNING)
    for package in logs.OURS:
        logging.getLogger(package).setLevel(logging.NOTSET)
    logs.structlog.reset_defaults()
