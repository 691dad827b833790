"""Reads every line of every file of a store and tells what is wrong; changes nothing."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from collector.limits import MAX_LINE_BYTES
from collector.lines import LineError, decode_line, decode_summed, is_blank, iterate_lines, split_lost_newlines
from collector.records import Json

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Attributes:
        kind: as the contract's FINDING_KIND_ names it.
        severity: NOTICE, WARNING or ERROR.
        file: its name.
        message: one line.
        offset: in bytes; None for a whole file.
        number: of the line in the log.
        experiment_id: where it is known.
    """

    kind: str
    severity: str
    file: str
    message: str
    offset: int | None = None
    number: int | None = None
    experiment_id: str = ""


@dataclass
class Checked:
    """What was read."""

    lines: int = 0
    verified_lines: int = 0
    meta_lines: int = 0
    running: int = 0
    bytes: int = 0
    counts: dict[str, int] = field(default_factory=lambda: {"NOTICE": 0, "WARNING": 0, "ERROR": 0})


def _chunks(path: Path, end: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        while end > 0 and (chunk := file.read(min(_CHUNK_BYTES, end))):
            end -= len(chunk)
            yield chunk


def _lines(path: Path, end: int, checked: Checked) -> Iterator[tuple[int, bytes | None]]:
    checked.bytes += end
    for offset, _, line in iterate_lines(_chunks(path, end), 0, MAX_LINE_BYTES):
        if line is not None and is_blank(line):
            continue
        pieces = split_lost_newlines(line) if line is not None else []
        if line is None or len(pieces) < 2 or _is_whole(line):
            yield offset, line
            continue
        place = offset
        for piece in pieces:
            yield place, piece if piece is pieces[-1] else piece[:-1]
            place += len(piece)


def _is_whole(line: bytes) -> bool:
    try:
        decode_line(line)
    except LineError:
        return False
    return True


def check_log(path: Path, end: int, checked: Checked) -> Iterator[Finding]:
    """Every line of the log up to a place."""
    seen: dict[str, int] = {}
    previous: tuple[int, bytes | None] | None = None
    for offset, line in _lines(path, end, checked):
        number = checked.lines
        checked.lines += 1
        if previous is not None and previous[1] is not None and not previous[1].endswith(b"\n"):
            yield Finding(
                "DAMAGED_NEWLINE", "WARNING", path.name, "a newline is damaged: both lines are still read", offset - 1
            )
        previous = (offset, line)
        if line is None:
            yield Finding("CORRUPT_LINE", "ERROR", path.name, "the line is too long to be read", offset, number)
            continue
        if line.startswith(b"\0"):
            yield Finding("NUL_BYTES", "NOTICE", path.name, "NUL bytes before the line: skipped", offset, number)
        try:
            found = decode_line(line)
        except LineError as error:
            yield Finding("CORRUPT_LINE", "ERROR", path.name, f"the line cannot be read: {error}", offset, number)
            continue
        checked.verified_lines += found.verified
        name = found.record.get("experiment_id")
        if isinstance(name, str) and name:
            first = seen.setdefault(name.lower(), number)
            if first != number:
                message = f"a second line of the experiment whose line has number {first}"
                yield Finding("DUPLICATE_ID", "WARNING", path.name, message, offset, number, name)


def check_meta(
    path: Path, end: int, is_known: Callable[[dict[str, Json]], bool], checked: Checked
) -> Iterator[Finding]:
    """Every line of annotations and amendments up to a place."""
    for offset, line in _lines(path, end, checked):
        checked.meta_lines += 1
        try:
            record = decode_summed(line).record if line is not None else {}
        except LineError as error:
            yield Finding("CORRUPT_LINE", "ERROR", path.name, f"the line says nothing: {error}", offset)
            continue
        subject = record.get("of")
        if record.get("kind") == "amendment" and not isinstance(record.get("record"), dict):
            yield Finding("CORRUPT_LINE", "ERROR", path.name, "an amendment without a record", offset)
            continue
        if record.get("kind") not in ("annotation", "amendment") or not isinstance(subject, dict):
            message = "neither an annotation nor an amendment: from a newer version?"
            yield Finding("ORPHAN_META", "WARNING", path.name, message, offset)
        elif not is_known(dict(subject)):
            message = "it is about an experiment that is not here: is this another store's file?"
            name = subject.get("experiment_id")
            yield Finding("ORPHAN_META", "WARNING", path.name, message, offset, None, str(name or ""))


def check_set_aside(directory: Path) -> Iterator[Finding]:
    """What was set aside earlier."""
    for path in sorted(directory.glob("percentile_experiments.*-2*")):
        if ".torn-" in path.name or ".corrupt-" in path.name:
            message = f"{path.stat().st_size} bytes that were set aside earlier: safe to delete"
            yield Finding("FILE_SET_ASIDE", "NOTICE", path.name, message)


__all__ = ["Checked", "Finding", "check_log", "check_meta", "check_set_aside"]
