"""Lines of other stores and of the earlier logger, checked and taken in.

A line is kept as it stands, byte by byte, with whatever keys it has. One whose experiment is here already is already
present; for lines without an id, the same bytes are the same experiment. What `ExportExperiments` gave as it is shown
is taken apart again: the record, and what is said of it.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from collector.annotations import Annotation
from collector.errors import InvalidRequestError
from collector.lines import LineError, decode_line, encode_line, is_blank
from collector.records import Record
from collector.validate import check_experiment_id

MAX_REJECTIONS = 100
MAX_IMPORT_LINE_BYTES = 64 << 20
# As many lines, or bytes of them, are written with one sync.
GROUP_LINES, GROUP_BYTES = 512, 4 << 20
_SHOWN_KEYS = ("number", "tags", "note", "archived")
_STATUSES = (None, "COMPLETED", "FAILED", "CANCELLED", "LOST")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A line that may be taken in.

    Attributes:
        place: of the line in what was sent, from 1.
        text: with its newline.
        experiment_id: empty where it has none.
        annotation: what was said of it where it comes from.
    """

    place: int
    text: bytes
    experiment_id: str
    annotation: Annotation

    @property
    def digest(self) -> bytes:
        """What tells lines without an id apart."""
        return digest_of(self.text)


@dataclass
class Tally:
    """What became of the lines."""

    imported: int = 0
    already_present: int = 0
    rejected: int = 0
    rejections: list[tuple[int, str]] = field(default_factory=list)

    def reject(self, place: int, reason: str) -> None:
        """One more, with its reason."""
        self.rejected += 1
        if len(self.rejections) < MAX_REJECTIONS:
            self.rejections.append((place, reason))


def digest_of(line: bytes) -> bytes:
    """Of a line, whatever blanks stand around it."""
    return hashlib.sha256(line.strip(b" \t\r\n")).digest()


def candidate_from_line(place: int, line: bytes) -> Candidate:
    """A line as it is to be stored.

    Raises:
        LineError: it is no experiment's.
    """
    text = line.removeprefix(b"\xef\xbb\xbf").lstrip(b"\0").strip(b" \t\r\n") + b"\n"
    found = decode_line(text)
    record = found.record
    if not isinstance(record.get("config"), dict):
        raise LineError("no experiment: it has no config")
    if record.get("status") not in _STATUSES:
        raise LineError(f"its status is {str(record['status'])[:40]!r}: only experiments that have ended are taken")
    name = record.get("experiment_id")
    if name is not None and not isinstance(name, str):
        raise LineError("its experiment_id is no text")
    annotation = Annotation()
    if not found.verified and "number" in record and "archived" in record:
        annotation = _take_annotation(record)
        text = encode_line(record)
    try:
        experiment_id = check_experiment_id(name) if name else ""
    except InvalidRequestError as error:
        raise LineError(str(error)) from None
    return Candidate(place, text, experiment_id, annotation)


def _take_annotation(record: Record) -> Annotation:
    _, tags, note, archived = (record.pop(key, None) for key in _SHOWN_KEYS)
    return Annotation(
        tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else (),
        note if isinstance(note, str) else "",
        archived is True,
    )


def lines_of(chunks: Iterator[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """The lines of a stream of bytes with their places from 1; None for one that is too long, the last one too."""
    place, rest, skipping = 1, bytearray(), False
    for chunk in chunks:
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            rest += chunk[start : end + 1]
            yield place, None if skipping or len(rest) > MAX_IMPORT_LINE_BYTES else bytes(rest)
            place, start, skipping = place + 1, end + 1, False
            rest.clear()
        rest += chunk[start:]
        if len(rest) > MAX_IMPORT_LINE_BYTES:
            skipping = True
            rest.clear()
    if rest or skipping:
        yield place, None if skipping else bytes(rest)


def candidates(chunks: Iterator[bytes], tally: Tally) -> Iterator[list[Candidate]]:
    """Groups of lines that may be taken in; the others are rejected."""
    group: list[Candidate] = []
    size = 0
    for place, line in lines_of(chunks):
        if line is None:
            tally.reject(place, f"longer than {MAX_IMPORT_LINE_BYTES} bytes")
            continue
        if is_blank(line):
            continue
        try:
            group.append(candidate_from_line(place, line))
        except (LineError, ValueError) as error:
            tally.reject(place, str(error)[:300])
            continue
        size += len(line)
        if len(group) >= GROUP_LINES or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


__all__ = ["Candidate", "Tally", "candidates", "digest_of"]
