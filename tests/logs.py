"""Logging as it was: what a test sets up, the next does not see."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from qlog.v1.logs import OURS


@contextmanager
def logging_restored() -> Iterator[None]:
    """Give this process's logging back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        for package in OURS:
            logging.getLogger(package).setLevel(logging.NOTSET)
        structlog.reset_defaults()
