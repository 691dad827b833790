r"""A record without its statistics, cut out of its line: most of the log is statistics, and the rest stands there already.

    {"timestamp":...,"config":{...},"activation_stats":{...},"reorder_summary":...,"events":5,"crc32c":"0a1b2c3d"}\n
    `------------ head ------------'                         `tail ------------------------'
"""

from collections.abc import Callable

from collector.lines import CHECKSUM_BYTES

_KEY = b'"activation_stats":'
# Shorter lines are read in one piece.
_GAP_BYTES = 16 << 10

Read = Callable[[int, int], bytes]
Cut = tuple[int, int]


def cut_of(line: bytes, summary: bytes) -> Cut | None:
    """Where head ends and tail begins; None where the two would not be the summary, byte for byte.

    Args:
        line: whole, with its newline; its checksum is right.
        summary: the record without statistics and checksum, as JSON.
    """
    head = line.find(_KEY)
    if head < 0:
        head = len(summary) - 1
    rest = summary[head:-1]
    end = len(line) - CHECKSUM_BYTES - 1
    tail = end - len(rest)
    if tail < head or not line.startswith(summary[:head]) or line[tail:end] != rest:
        return None
    return head, tail


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


__all__ = ["Cut", "Read", "cut_of", "summary_at"]
