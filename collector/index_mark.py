"""By what a log is recognized: an index agrees with a file that still has the mark of when it was indexed.

That is the same inode, at least as long as what was indexed, not written to since where it is no longer, that begins as
it began and has at the end of what was indexed what stood there. Whatever the length of the log, this reads little.
"""

from dataclasses import asdict

import google_crc32c
import orjson

from collector.index import LogMark
from collector.logfile import LogFile

_HEAD_BYTES, _TAIL_BYTES = 64 << 10, 4 << 10


def agrees(indexed: int, mark: LogMark | None, log: LogFile) -> bool:
    """Whether an index of so many bytes, with this mark, is of the beginning of a log, or of all of it."""
    if mark is None:
        return indexed == 0
    if indexed > log.committed:
        return False
    now = mark_of(log, indexed, (mark.head[0], mark.tail[0]))
    unchanged = indexed < log.size() or now.mtime_ns == mark.mtime_ns
    return unchanged and (now.device, now.inode, now.head, now.tail) == (
        mark.device,
        mark.inode,
        mark.head,
        mark.tail,
    )


def mark_of(log: LogFile, end: int, lengths: tuple[int, int] = (_HEAD_BYTES, _TAIL_BYTES)) -> LogMark:
    """The mark of a log up to some place."""
    status = log.status()
    head, tail = min(lengths[0], end), min(lengths[1], end)
    return LogMark(
        status.st_dev,
        status.st_ino,
        status.st_mtime_ns,
        (head, _checksum(log, 0, head)),
        (tail, _checksum(log, end - tail, tail)),
    )


def _checksum(log: LogFile, start: int, length: int) -> int:
    return int(google_crc32c.value(log.read(start, length)))


def mark_text(mark: LogMark) -> str:
    """A mark as the table `state` has it."""
    return orjson.dumps(asdict(mark)).decode()


def mark_from_text(text: str) -> LogMark | None:
    """The mark that stands in the table `state`; None where there is none."""
    if not text:
        return None
    mark = orjson.loads(text)
    return LogMark(mark["device"], mark["inode"], mark["mtime_ns"], tuple(mark["head"]), tuple(mark["tail"]))


__all__ = ["agrees", "mark_from_text", "mark_of", "mark_text"]
