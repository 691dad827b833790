"""Text that others wrote, made safe for terminals and logs."""

import logging
import re

# What could steer a terminal or turn text around: C0, DEL, C1, line and paragraph separators, bidirectional controls,
# lone surrogates.
HARMFUL = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_CONTROL = re.compile(f"[{HARMFUL}]")
# JSON allows these as they are; a terminal may act on them.
_HARMFUL_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def escape(text: str) -> str:
    r"""One line of text that is safe on a terminal: control characters as \n, \x1b, \u202e."""
    return _CONTROL.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def harmless_json(text: str) -> str:
    """The same JSON, with what a terminal may act on as \\u escapes."""
    return _HARMFUL_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class LineFormatter(logging.Formatter):
    """An entry as one line; a traceback below it, each of its lines marked and escaped.

    Args:
        prefix: of the line.
    """

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self._prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        """The message without any line of its own, then the lines of the traceback, marked as such."""
        trace = record.exc_text or (self.formatException(record.exc_info) if record.exc_info else "")
        message = f"{self._prefix}{record.getMessage()}"
        return "\n".join([escape(message), *(f"  | {escape(line)}" for line in trace.split("\n") if trace)])


def plain_logging(prefix: str, level: str = "warning") -> None:
    """Have warnings (and errors) of this process told on standard error, as a program tells them to its user.

    Args:
        prefix: of each.
        level: "error" leaves warnings out; what is less important than a warning is not told in any case.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter(prefix))
    least = max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()])
    logging.basicConfig(handlers=[handler], level=least)
    if level == "error":
        logging.getLogger().setLevel(least)


__all__ = ["HARMFUL", "LineFormatter", "escape", "harmless_json", "plain_logging"]
