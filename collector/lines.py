r"""One line of the log: how it is written, checked and read.

A line is a JSON object in UTF-8 on one line, its checksum the last key:

    {"timestamp":"2025-11-05 15:30:00",...,"events":12,"crc32c":"0a1b2c3d"}\n
    `------------------- summed -------------------'

The checksum is CRC-32C over the line's bytes before `,"crc32c":"`, as 8 lower-case hexadecimal digits. A line without
one (of the earlier logger) is accepted as unverified. What else a file that people had in their hands may contain:

- a byte order mark before the first line, CRLF ends: no part of the record and of the sum;
- NUL bytes before a line (what a power cut leaves of a block that was never written): skipped;
- bare NaN, Infinity, -Infinity (Python's `json` writes them): read as the strings that the log has for them;
- lone surrogates, numbers beyond 64 bits: read as "?", as the nearest double or as the strings for infinities;
- bytes that are not UTF-8, text that is no JSON object, a checksum that does not match or has lost its form: corrupt.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import google_crc32c
import orjson

from collector.records import Json, Record

CHECKSUM_KEY = "crc32c"
_CHECKSUM_START = b',"crc32c":"'
# Of the checksum with the brace behind it.
CHECKSUM_BYTES = len(_CHECKSUM_START) + 8 + len(b'"}')
# The same place with one byte of the key damaged.
_DAMAGED_KEY = re.compile(rb',"[^"\\]{6}":"[^"\\]{8}"\}\Z')
# Two lines whose newline was damaged: the end of the first is certain, it is a checksum.
_LOST_NEWLINE = re.compile(rb',"crc32c":"[0-9a-f]{8}"\}[^\n](?=\{")')
_BOM = b"\xef\xbb\xbf"
_WHITESPACE = b" \t\r\n"


class LineError(ValueError):
    """A line cannot be read as a record; the message says why."""


@dataclass(frozen=True, slots=True)
class Line:
    """A record with what its line tells of it.

    Attributes:
        record: the object without its checksum.
        verified: its checksum was there and matched.
    """

    record: Record
    verified: bool


def encode_line(record: Record) -> bytes:
    """The line of a record, with checksum and newline.

    Args:
        record: without NaN and infinities (see `collector.records`) and without a checksum.
    """
    body = orjson.dumps(record)[:-1]
    return b'%b%b%08x"}\n' % (body, _CHECKSUM_START, google_crc32c.value(body))


def is_blank(line: bytes) -> bool:
    """Whether a line holds nothing at all: such a line is no record and takes no number."""
    return not line.startswith(b"{") and not line.removeprefix(_BOM).strip(_WHITESPACE)


def decode_summed(line: bytes) -> Line:
    """Read one line of a file that collectors alone write: it has a checksum.

    Raises:
        LineError: the line is corrupt, or has none.
    """
    found = decode_line(line)
    if not found.verified:
        raise LineError("it has no checksum")
    return found


def decode_line(line: bytes) -> Line:
    """Read one line, with or without its newline.

    Raises:
        LineError: the line is corrupt.
    """
    text = line.removeprefix(_BOM).lstrip(b"\0").strip(_WHITESPACE)
    tail = text[-CHECKSUM_BYTES:]
    summed = tail.startswith(_CHECKSUM_START) and tail.endswith(b'"}')
    if summed:
        body = text[:-CHECKSUM_BYTES]
        stated, actual = tail[len(_CHECKSUM_START) : -2], b"%08x" % google_crc32c.value(body)
        if stated != actual:
            raise LineError(
                f"the checksum is {stated.decode('ascii', 'replace')!r}, that of the bytes is {actual.decode()!r}"
            )
    record = _parse(text)
    if not summed and (CHECKSUM_KEY in record or ("schema_version" in record and _DAMAGED_KEY.search(tail))):
        raise LineError("the checksum is not the last key in the form in which it was written")
    record.pop(CHECKSUM_KEY, None)
    return Line(record, verified=summed)


def decode_as_written(line: bytes) -> Record | None:
    """Read a line that is as `encode_line` makes them, quickly: its record with its checksum; None where it is not."""
    end = len(line) - CHECKSUM_BYTES - 1
    if not line.startswith(b"{") or line[end:] != b'%b%08x"}\n' % (_CHECKSUM_START, google_crc32c.value(line[:end])):
        return None
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) and next(reversed(record), "") == CHECKSUM_KEY else None


def _parse(text: bytes) -> Record:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        try:
            value = _parse_leniently(text)
        except (ValueError, RecursionError) as error:
            raise LineError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise LineError(f"a JSON {type(value).__name__}, not an object")
    return value


def _parse_leniently(text: bytes) -> Json:
    """As Python's `json` reads it, which is slower, made such that orjson can write it again."""
    value = json.loads(text.decode("utf-8"), parse_constant=str, parse_float=_number, parse_int=_number)
    return orjson.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))  # type: ignore[no-any-return]


def _number(text: str) -> int | float | str:
    if len(text) <= 20 and text.lstrip("-").isdigit() and -(2**63) <= int(text) < 2**64:
        return int(text)
    value = float(text)
    if not math.isfinite(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def split_lost_newlines(line: bytes) -> list[bytes]:
    """The pieces of a line in which damaged newlines are still recognizable; one piece where there are none.

    So that a damaged newline does not shift the numbers of all later lines. The damaged byte stays with the piece
    before it (`b"".join(pieces) == line`).
    """
    ends = [match.end() for match in _LOST_NEWLINE.finditer(line)]
    return [line[start:end] for start, end in zip([0, *ends], [*ends, len(line)], strict=True)]


def iterate_lines(chunks: Iterator[bytes], offset: int, max_bytes: int) -> Iterator[tuple[int, int, bytes | None]]:
    """Cut a stream of bytes into lines.

    Args:
        chunks: the bytes, cut anywhere.
        offset: of the first byte.
        max_bytes: longer lines are not kept in memory.

    Yields:
        (offset, length with the newline, the line or None where it is longer than max_bytes); bytes after the last
        newline are not yielded.
    """
    parts: list[bytes] = []
    length = 0
    for chunk in chunks:
        start = 0
        while (end := chunk.find(b"\n", start) + 1) > 0:
            length += end - start
            if length > max_bytes:
                yield offset, length, None
            elif parts:
                yield offset, length, b"".join([*parts, chunk[start:end]])
            else:
                yield offset, length, chunk[start:end]
            offset, length, start = offset + length, 0, end
            parts.clear()
        length += len(chunk) - start
        if length > max_bytes:
            parts.clear()
        else:
            parts.append(chunk[start:])


__all__ = [
    "CHECKSUM_BYTES",
    "CHECKSUM_KEY",
    "Line",
    "LineError",
    "decode_as_written",
    "decode_line",
    "decode_summed",
    "encode_line",
    "is_blank",
    "iterate_lines",
    "split_lost_newlines",
]
