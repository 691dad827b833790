"""Text that others wrote, made safe for terminals and logs."""

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


__all__ = ["HARMFUL", "escape", "harmless_json"]
