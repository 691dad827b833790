"""What is known of every line: the log, its index, and what is said beside it, kept in step."""

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from collector.annotations import Annotation
from collector.errors import CollectorError, CorruptLineError, RetryError, StoreUnavailableError
from collector.files import FileLayer
from collector.index import Entry
from collector.index_database import remove_database
from collector.index_mark import mark_of
from collector.index_open import open_index
from collector.index_sqlite import SqliteIndex
from collector.lines import LineError, decode_line
from collector.logfile import LogFile
from collector.meta import Meta
from collector.names import INDEX_NAME, LOG_NAME, META_NAME
from collector.observer import SILENT, StoreObserver
from collector.records import Record
from collector.scanning import steps
from collector.subjects import Subject, place_of

logger = logging.getLogger(__name__)


class Catalog:
    """The three, open.

    Args:
        log_dir: of the store.
        read_only: nothing is made, repaired or appended.
        layer: the operating system's calls.
        observer: told of syncs, and of torn ends.

    Attributes:
        lock: taken by whoever appends to the log or to the meta file, or takes in what others appended.
    """

    def __init__(
        self, log_dir: Path, *, read_only: bool, layer: FileLayer | None, observer: StoreObserver = SILENT
    ) -> None:
        self.path = log_dir / LOG_NAME
        self.read_only = read_only
        self.lock = threading.Lock()
        with ExitStack() as files:
            self.log = LogFile(self.path, read_only=read_only, layer=layer, observer=observer)
            files.callback(self.log.close)
            self.meta = Meta(log_dir / META_NAME, read_only=read_only, layer=layer, place=self.place, observer=observer)
            files.callback(self.meta.close)
            if not read_only:
                self._settle()
            self._index = open_index(self.log, self.record, read_only=read_only)
            files.callback(lambda: self._index.close())
            try:
                self._be_up_to_date()
            except StoreUnavailableError as error:
                # Damage that only shows when the index is used.
                self._reopen(error)
                self._be_up_to_date()
            self._files = files.pop_all()

    def close(self) -> None:
        """Close the files."""
        self._files.close()

    def _be_up_to_date(self) -> None:
        self.index_new_lines()
        self._warn_of_corrupt_lines(self._index.corrupt_count())
        self.take_in_meta()
        self._forget_what_is_not_said()

    def _settle(self) -> None:
        try:
            self.log.settle()
            self.meta.settle()
        except RetryError as error:
            # Reads go on, and the first append tries again.
            logger.warning("%s", error)

    # --- reading ---

    def find(self, experiment_id: str) -> Entry | None:
        """The line of an experiment, among those that are indexed already."""
        return self._index.by_id(experiment_id)

    def known(self) -> SqliteIndex:
        """The index as it stands: for whoever holds the lock."""
        return self._index

    def index(self) -> SqliteIndex:
        """What is known of every line, as of now."""
        if self._index.unusable():
            self._renew()
        self.refresh()
        return self._index

    def refresh(self) -> None:
        """Take in whole lines that another program has appended; while we append ourselves there is nothing to see."""
        more = self.log.has_more() or (self.read_only and self.meta.has_more())
        if more and self.lock.acquire(blocking=False):
            try:
                self.log.refresh()
                self.index_new_lines()
                self.take_in_meta()
            finally:
                self.lock.release()

    def record(self, entry: Entry) -> Record:
        """The full record of a line.

        Raises:
            CorruptLineError: the line is damaged.
        """
        if (whole := self.meta.amendment(entry.number)) is not None:
            return whole
        if entry.corrupt:
            raise CorruptLineError(f"experiment {entry.number} cannot be read: {entry.error}")
        try:
            return decode_line(self.log.read(entry.offset, entry.length)).record
        except LineError as error:
            where = f"the line at byte {entry.offset} of {self.path}"
            raise CorruptLineError(f"experiment {entry.number} cannot be read: {where}: {error}") from None

    def place(self, subject: Subject) -> int | None:
        """The number that a subject of the meta file has now."""
        return place_of(subject, self._index, self.log)

    def annotation(self, found: Entry | str) -> Annotation:
        """What is said of a line, or of an experiment that runs, by its id."""
        if isinstance(found, str):
            return self.meta.early.get(found, Annotation())
        return self.meta.annotations.get(found.number, Annotation())

    # --- keeping in step; with the lock held, but at open ---

    def settle(self) -> None:
        """Make the log end at a newline, and know all that is before it. RetryError where that cannot be done now."""
        self.log.settle()
        self.index_new_lines()

    def add(self, entries: Sequence[Entry]) -> None:
        """Index lines that end the log, whatever it takes: an experiment without it would be written again."""
        end = self.log.committed
        try:
            if not self._index.append(entries, end, mark_of(self.log, end)):
                self.index_new_lines()
        except CollectorError as error:
            self._reopen(error)
        if self.meta.early:
            self.take_in_meta()

    def index_new_lines(self) -> None:
        """Bring the index up to the end of the log, in steps that each are there for good."""
        try:
            self._index_to(self.log.committed)
        except StoreUnavailableError as error:
            self._reopen(error)

    def _index_to(self, end: int) -> None:
        while (start := self._index.indexed()) < end:
            corrupt = sum(self._index_from(start, end))
            if start > 0:
                self._warn_of_corrupt_lines(corrupt)

    def _index_from(self, start: int, end: int) -> Iterator[int]:
        """Index what stands between two places; yields how many corrupt lines each step had."""
        index = self._index
        for step in steps(self.log, start, end, index.count(), index.names):
            if not index.extend(step.start, step.end, step.rows, mark_of(self.log, step.end)):
                # Another process was faster: go on where it is.
                return
            yield step.rows.corrupt

    def _reopen(self, error: object) -> None:
        """Another index, of all lines and all that is said, elsewhere where this one could not be written."""
        logger.warning("%s failed (%s): the log is indexed anew", INDEX_NAME, error)
        self._index.close()
        elsewhere = self._index.unwritable
        if self._index.damaged and not elsewhere:
            with suppress(OSError):
                remove_database(self.path.with_name(INDEX_NAME))
        self._index = open_index(self.log, self.record, read_only=self.read_only, elsewhere=elsewhere)
        self._index_to(self.log.committed)
        self._tell(self.meta.numbers())

    def take_in_meta(self) -> None:
        """Know what is new in the meta file, and what was said early of a line that is there now."""
        self.show(self.meta.refresh())

    def show(self, numbers: set[int]) -> None:
        """Have the index say of these lines what the meta file says."""
        try:
            self._tell(numbers)
        except StoreUnavailableError as error:
            self._reopen(error)

    def _tell(self, numbers: set[int]) -> None:
        for number in numbers:
            try:
                record = self.meta.amendment(number)
            except CorruptLineError as error:
                logger.warning("%s", error)
            else:
                if record is not None:
                    self._index.amend(number, record)
            if (said := self.meta.annotations.get(number)) is not None:
                self._index.annotate(number, said)

    def _forget_what_is_not_said(self) -> None:
        """The index of before may know what a meta file said that is not there any more."""
        annotated, amended = self._index.spoken_of()
        said = self.meta.numbers()
        for number in annotated - said:
            self._index.annotate(number, Annotation())
        if not amended <= said:
            self._index.spoil()
            self._renew()

    def _renew(self) -> None:
        with self.lock:
            if self._index.unusable():
                self._reopen("it was damaged or removed")

    def _warn_of_corrupt_lines(self, count: int) -> None:
        if count and (first := self._index.first_corrupt()) is not None:
            logger.warning(
                "%s: %d of its lines cannot be read, the first is number %d: %s",
                self.path,
                count,
                first.number,
                first.error,
            )


__all__ = ["Catalog"]
