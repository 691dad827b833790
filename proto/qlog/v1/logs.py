r"""A server's log: structured, one line an entry, on standard error, for people or as JSON.

What others wrote (names of models, commands, addresses, the text of an error) stands in an entry with its control
characters escaped: nobody forges a line, or steers a terminal. Secrets are never given to a logger in the first place.
"""

import json
import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import Processor

from qlog.v1.escaping import escape, harmless_json
from qlog.v1.log_writer import LogWriter

# Whose entries may be less important than warnings. Other libraries talk much, and not to the operator.
OURS = ("collector", "quantizer", "quamba", "qlog", "client")
_PLAIN = re.compile(r"[^\s\"=\\]+")
_FIRST = ("timestamp", "level", "program", "logger", "event")

Event = MutableMapping[str, Any]


def start_logging(program: str, form: str, level: str, stream: TextIO | None = None) -> None:
    """Have everything that this process logs written as entries, in place of what was set up before.

    Args:
        program: named in each entry.
        form: "text" or "json".
        level: the least important of our own entries: "debug", "info", "warning", "error".
        stream: where to; None: standard error.
    """

    def name(_logger: object, _method: str, event: Event) -> Event:
        event["program"] = program
        return event

    first: list[Processor] = [
        name,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *first, ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = _to_standard_error() if stream is None else logging.StreamHandler(stream)
    render: Processor = as_json if form == "json" else as_text
    last: list[Processor] = [ProcessorFormatter.remove_processors_meta, structlog.processors.format_exc_info, render]
    handler.setFormatter(ProcessorFormatter(foreign_pre_chain=first, processors=last))
    least = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(handlers=[handler], level=max(least, logging.WARNING), force=True)
    for package in OURS:
        logging.getLogger(package).setLevel(least)


def _to_standard_error() -> logging.Handler:
    try:
        return LogWriter(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):  # None, closed, or a stand-in that is no file.
        return logging.StreamHandler()


def logs_json() -> bool:
    """Whether entries are written as JSON."""
    return any(
        isinstance(handler.formatter, ProcessorFormatter) and as_json in handler.formatter.processors
        for handler in logging.getLogger().handlers
    )


def as_json(_logger: object, _method: str, event: Event) -> str:
    """An entry as one line of JSON: ASCII, so that nothing in it can act on a terminal."""
    return harmless_json(json.dumps(_ordered(event), default=str))


def as_text(_logger: object, _method: str, event: Event) -> str:
    """An entry as a line: time, program, level, what happened, then key=value; a traceback below it, marked."""
    found = _ordered(event)
    head = f"{found.pop('timestamp')} {found.pop('program')} {found.pop('level')}: {escape(str(found.pop('event')))}"
    found.pop("logger")
    trace = found.pop("exception", "")
    line = " ".join([head, *(f"{escape(key)}={_quoted(value)}" for key, value in found.items())])
    return "\n".join([line, *(f"  | {escape(row)}" for row in str(trace).split("\n") if trace)])


def _ordered(event: Mapping[str, Any]) -> dict[str, Any]:
    return {key: event.get(key) for key in _FIRST} | {key: event[key] for key in event if key not in _FIRST}


def _quoted(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    if _PLAIN.fullmatch(text):
        return escape(text)
    # As JSON quotes it, but for letters of other scripts, which people read.
    return escape(json.dumps(text, ensure_ascii=False))


__all__ = ["OURS", "as_json", "as_text", "logs_json", "start_logging"]
