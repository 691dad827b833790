r"""A record without its statistics, cut out of its line: there it stands already, in two pieces.

{"timestamp":...,"config":{...},"activation_stats":{...},"reorder_summary":...,"events":5,"crc32c":"0a1b2c3d"}\n
`------------ head ------------'                         `tail ------------------------'
"""

from collections.abc import Callable
from functools import lru_cache

import orjson

from collector.lines import CHECKSUM_BYTES

_KEY, _FIRST = "activation_stats", b',"activation_stats":'
# Shorter gaps are read with what stands around them.
_GAP_BYTES = 16 << 10

Read = Callable[[int, int], bytes]
Cut = tuple[int, int]


def cut_of(line: bytes, keys: tuple[str, ...]) -> Cut | None:
    """Where head ends and tail begins; None where that is not certain.

    A key with a comma before its quote and a colon behind it is a key wherever it stands in JSON, and what stands only
    once in the line is the one that the record has.

    Args:
        line: whole, with its newline; its checksum is right.
        keys: of the object, in their order, its statistics and its checksum among them.
    """
    end = len(line) - CHECKSUM_BYTES - 1
    second = _key_behind(keys)
    if second is None:
        return end, end
    head, tail = line.find(_FIRST), line.find(second)
    if not 0 <= head < tail <= end or line.find(_FIRST, head + 1) >= 0 or line.find(second, tail + 1) >= 0:
        return None
    return head, tail


@lru_cache(256)
def _key_behind(keys: tuple[str, ...]) -> bytes | None:
    """The key behind the statistics, as it stands in a line; None where there are no statistics."""
    if _KEY not in keys:
        return None
    if keys[0] == _KEY:
        # No comma before it; this stands in no line.
        return b"\n"
    return b",%b:" % orjson.dumps(keys[keys.index(_KEY) + 1])


def summary_at(read: Read, place: int, length: int, cut: Cut) -> bytes:
    """The record without its statistics, as JSON.

    Args:
        read: offset and length in the log -> bytes.
        place, length: of the line.
        cut: what `cut_of` said of it.
    """
    head, tail = cut
    end = length - CHECKSUM_BYTES - 1
    if tail - head <= _GAP_BYTES:
        text = read(place, end)
        return b"%b%b}" % (text[:head], text[tail:])
    return b"%b%b}" % (read(place, head), read(place + tail, end - tail))


def stats_at(read: Read, place: int, cut: Cut) -> bytes:
    """The statistics, as JSON; empty where the line has none. The arguments are those of `summary_at`."""
    head, tail = cut
    return read(place + head + len(_FIRST), tail - head - len(_FIRST)) if tail > head else b""


class Window:
    """Bytes of a file that is read from its beginning to its end, in larger pieces than they are asked for.

    Args:
        read: offset and length -> bytes.
    """

    _BYTES = 1 << 20

    def __init__(self, read: Read) -> None:
        self._read = read
        self._start = 0
        self._bytes = b""

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the file; fewer at its end."""
        start = offset - self._start
        if start < 0 or start + length > len(self._bytes):
            self._start, self._bytes = offset, self._read(offset, max(length, self._BYTES))
            start = 0
        return self._bytes[start : start + length]


__all__ = ["Cut", "Read", "Window", "cut_of", "stats_at", "summary_at"]
