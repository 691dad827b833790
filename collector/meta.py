"""What is said of experiments beside the log: annotations, and amendments of lines that said LOST.

`percentile_experiments.meta.jsonl` is a file of lines like the log's (`collector.lines`), appended and never changed;
the last that says something of an experiment holds. A line that cannot be read is kept, counted, and says nothing.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from collector.annotations import Annotation
from collector.errors import CorruptLineError
from collector.files import FileLayer
from collector.limits import MAX_LINE_BYTES
from collector.lines import LineError, decode_summed, encode_line, is_blank, iterate_lines
from collector.logfile import LogFile
from collector.observer import SILENT, StoreObserver
from collector.records import Record
from collector.subjects import Subject

logger = logging.getLogger(__name__)


class Meta:
    """The file, and what it says now. Writing is for one thread at a time.

    Args:
        path: of the file; made with the first line.
        read_only: nothing is made or repaired.
        layer: the operating system's calls.
        place: the number that a subject has in the log now; None while it has none.
        observer: told of syncs, and of a torn end.
    """

    def __init__(
        self,
        path: Path,
        *,
        read_only: bool,
        layer: FileLayer | None,
        place: Callable[[Subject], int | None],
        observer: StoreObserver = SILENT,
    ) -> None:
        self.annotations: dict[int, Annotation] = {}
        # Of experiments without a line yet, by id.
        self.early: dict[str, Annotation] = {}
        self.corrupt = 0
        self._amendments: dict[int, tuple[int, int]] = {}
        self._waiting: list[tuple[Subject, Record, int, int]] = []
        self._place = place
        self._read = 0
        self._file = LogFile(path, read_only=read_only, layer=layer, lazy=True, observer=observer)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def size(self) -> int:
        """Bytes up to the end of the last whole line."""
        return self._file.committed

    def size_in_file(self) -> int:
        """Bytes in the file now, whole lines or not."""
        return self._file.size()

    def has_more(self) -> bool:
        """Whether another process has written."""
        return self._file.has_more()

    def chunks(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes as they stand."""
        return self._file.chunks(start, end)

    def settle(self) -> None:
        """Set half a line at the end aside. RetryError where that cannot be done now."""
        if self._file.is_open:
            self._file.settle()

    def refresh(self) -> set[int]:
        """Take in what is new, and what has a line now; the numbers of which something else is said than before."""
        self._file.refresh()
        start, end = self._read, self._file.committed
        found, self._waiting = self._waiting, []
        for offset, length, line in iterate_lines(self._file.chunks(start, end), start, MAX_LINE_BYTES):
            if line is None or not is_blank(line):
                found += self._parsed(offset, length, line)
        self._read = end
        return {number for item in found if (number := self._apply(*item)) is not None}

    def _parsed(self, offset: int, length: int, line: bytes | None) -> list[tuple[Subject, Record, int, int]]:
        try:
            record = decode_summed(line).record if line is not None else {}
            subject = record.get("of")
            if not isinstance(subject, dict) or record.get("kind") not in ("annotation", "amendment"):
                raise LineError("neither an annotation nor an amendment")
        except LineError as error:
            self.corrupt += 1
            logger.warning("%s: the line at byte %d is kept and says nothing: %s", self._file.path, offset, error)
            return []
        return [(subject, record, offset, length)]

    def _apply(self, subject: Subject, record: Record, offset: int, length: int) -> int | None:
        number = self._place(subject)
        if number is None:
            self._waiting.append((subject, record, offset, length))
            if record["kind"] == "annotation" and (name := subject.get("experiment_id")):
                self.early[str(name)] = _annotation(record)
            return None
        if record["kind"] == "amendment":
            self._amendments[number] = (offset, length)
        else:
            self.annotations[number] = _annotation(record)
            self.early.pop(str(subject.get("experiment_id")), None)
        return number

    def is_amended(self, number: int) -> bool:
        """Whether a line was completed."""
        return number in self._amendments

    def numbers(self) -> set[int]:
        """All lines of which something is said."""
        return self.annotations.keys() | self._amendments.keys()

    def amendment(self, number: int) -> Record | None:
        """The whole record of a line that was completed.

        Raises:
            CorruptLineError: it cannot be read any more.
        """
        place = self._amendments.get(number)
        if place is None:
            return None
        try:
            record = decode_summed(self._file.read(*place)).record["record"]
        except (LineError, KeyError) as error:
            where = f"the amendment at byte {place[0]} of {self._file.path}"
            raise CorruptLineError(f"experiment {number} cannot be read: {where}: {error}") from None
        if not isinstance(record, dict):
            raise CorruptLineError(f"experiment {number} cannot be read: its amendment is no record")
        return record

    def counts(self) -> tuple[int, int]:
        """Experiments of which something is said, and those that were completed."""
        said = sum(annotation != Annotation() for annotation in self.annotations.values())
        return said, len(self._amendments)

    def annotate(self, subject: Subject, annotation: Annotation, time: str) -> set[int]:
        """Say something of an experiment, durably. RetryError where that cannot be written."""
        record: Record = {
            "kind": "annotation",
            "of": subject,
            "time": time,
            "tags": list(annotation.tags),
            "note": annotation.note,
            "archived": annotation.archived,
        }
        return self._append(record)

    def amend(self, subject: Subject, whole: Record, time: str) -> set[int]:
        """Complete a line, durably. RetryError where that cannot be written."""
        return self._append({"kind": "amendment", "of": subject, "time": time, "record": whole})

    def _append(self, record: Record) -> set[int]:
        self._file.settle()
        changed = self.refresh()
        self._file.append(encode_line(record))
        return changed | self.refresh()


def _annotation(record: Record) -> Annotation:
    tags, note = record.get("tags"), record.get("note")
    return Annotation(
        tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else (),
        note if isinstance(note, str) else "",
        record.get("archived") is True,
    )


__all__ = ["Meta"]
