"""The store of one log directory: its invariants, and the parts that keep them.

Files, for a log directory D:

    D/percentile_experiments.jsonl             the truth: one line an experiment, in the order in which they ended
    D/percentile_experiments.inflight.sqlite   the events of experiments without a line (`collector.inflight`)
    D/percentile_experiments.index.sqlite      what lists and filters look at (`collector.index_sqlite`), disposable
    D/percentile_experiments.meta.jsonl        annotations, and amendments of lines that say LOST (`collector.meta`)
    D/percentile_experiments.lock              who writes (`collector.lock`)
    D/percentile_experiments.jsonl.torn-TIME   what an interrupted append left, set aside at open
    D/percentile_experiments.inflight.sqlite.corrupt-TIME   a damaged database, set aside at open

Invariants:

1.  One writer. Whoever appends holds the lock; a reader needs none, because of 2 and 3.
2.  The log only grows. No byte before a committed newline is ever changed, moved or cut, by nothing and for no reason;
    a damaged line stays, keeps its number, and everything after it is served.
3.  The newline means committed. What stands behind the last one is no line: it is copied to a file of its own and cut.
4.  A number is for ever: that of an experiment is the count of lines before its own that are not blank.
5.  Acknowledged is on disk. An event is acknowledged after the transaction that holds it is synced; a finish after its
    line is. What cannot be written is not acknowledged, and reads go on.
6.  Once. An experiment has one line: events at positions that are there already are not stored again, and an experiment
    that has a line takes no more.
7.  All or nothing. An experiment's events are deleted after its line is synced; a crash between leaves both, and the
    events are deleted at the next open because the line is there.
8.  Nothing is in memory, in the index that cannot be made anew from these files.
9.  After a failed sync nothing is assumed: the log is opened anew, cut to what was committed, its last line read back.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import google_crc32c

from collector.annotations import Annotation
from collector.batches import Batch, Running, Stored
from collector.errors import (
    CollectorError,
    CorruptLineError,
    LockedError,
    NetworkFileSystemError,
    ReadOnlyError,
    RetryError,
    StoreAccessError,
)
from collector.files import FileLayer
from collector.fsck import Checked, Finding, check_events, check_log, check_meta, check_set_aside
from collector.importing import Candidate, Tally, digest_of
from collector.index import Entry, entry_from_line, entry_from_record
from collector.index_open import INDEX_NAME, mark_of, open_index
from collector.index_sqlite import SqliteIndex
from collector.inflight import Inflight
from collector.ingest import Ingest
from collector.lease import DEFAULT_LEASE_S
from collector.ledger import Codec, Done, Ledger, Receipt, receipt_of
from collector.limits import MAX_LINE_BYTES
from collector.lines import (
    Line,
    LineError,
    decode_line,
    encode_line,
    is_blank,
    iterate_lines,
    split_lost_newlines,
)
from collector.lock import StoreLock, read_holder
from collector.logfile import LogFile
from collector.meta import META_NAME, Meta, Subject
from collector.mounts import network_file_system
from collector.records import Record
from collector.snapshot import Snapshot
from collector.watchers import Watchers

logger = logging.getLogger(__name__)

LOG_NAME = "percentile_experiments.jsonl"
INFLIGHT_NAME = "percentile_experiments.inflight.sqlite"
LOCK_NAME = "percentile_experiments.lock"

# Of the log, indexed in one transaction.
_STEP_BYTES = 8 << 20


class Store:
    """An open store. Make one with `open_store`."""

    def __init__(
        self,
        log_dir: Path,
        codec: Codec,
        lock: StoreLock | None,
        layer: FileLayer | None,
        lease_s: float = DEFAULT_LEASE_S,
    ) -> None:
        self.lease_s = lease_s
        self.path = log_dir / LOG_NAME
        self.read_only = lock is None
        self.watchers = Watchers()
        self._lock = lock
        # Taken by whoever appends to the log or takes in what others appended.
        self._log_lock = threading.Lock()
        self._log = LogFile(self.path, read_only=self.read_only, layer=layer)
        # Who only reads has a snapshot and no writer.
        self._ingest: Ingest | None = None
        self._events: Inflight | Snapshot
        with ExitStack() as files:
            files.callback(self._log.close)
            self.meta = Meta(log_dir / META_NAME, read_only=self.read_only, layer=layer, place=self._place)
            files.callback(self.meta.close)
            if not self.read_only:
                self._settle_at_open()
            self._index = open_index(self._log, self.record, read_only=self.read_only)
            files.callback(lambda: self._index.close())
            self._index_new_lines()
            self._warn_of_corrupt_lines(self._index.corrupt_count())
            self._take_in_meta()
            self._forget_what_is_not_said()
            if self.read_only:
                self._events = Snapshot(log_dir / INFLIGHT_NAME)
            else:
                self._events = Inflight(log_dir / INFLIGHT_NAME)
            files.callback(self._events.close)
            if isinstance(self._events, Inflight):
                ledger = Ledger(self._find, self._append, self._amend, self.watchers.changed, self.watchers.behind)
                self._ingest = Ingest(self._events, ledger, codec, lease_s=lease_s)
                self._ingest.start()
            self._files = files.pop_all()

    def close(self) -> None:
        """Store what was submitted, close the files, give up the lock."""
        if self._ingest is not None:
            self._ingest.stop()
        self._files.close()
        if self._lock is not None:
            self._lock.release()

    def announce(self, endpoint: str, *, guarded: bool = False) -> None:
        """Tell others where this store is served, and whether that takes TLS or a token."""
        if self._lock is not None:
            self._lock.announce(endpoint, guarded=guarded)

    # --- writing ---

    def submit(self, batch: Batch, done: Done) -> None:
        """Store a batch of events: see `Ingest.submit`.

        Raises:
            ReadOnlyError: the store was opened for reading only.
        """
        if self._ingest is None:
            raise ReadOnlyError(f"the store {self.path} was opened for reading only: it takes no experiments")
        self._ingest.submit(batch, done)

    def status(self, experiment_id: str) -> Receipt:
        """What is on disk of an experiment."""
        if self._ingest is not None:
            self.refresh()
            return self._ingest.status(experiment_id)
        state = self._events.running().get(experiment_id)
        entry = self.index().by_id(experiment_id)
        stored = 0 if state is None else state.committed
        return Receipt(stored) if entry is None else receipt_of(entry, stored)

    def _find(self, experiment_id: str) -> Entry | None:
        return self._index.by_id(experiment_id)

    def _settle_at_open(self) -> None:
        try:
            self._log.settle()
            self.meta.settle()
        except RetryError as error:
            # Reads go on, and the first append tries again.
            logger.warning("%s", error)

    def _append(self, record: Record) -> Entry:
        line = encode_line(record)
        with self._log_lock:
            self._log.settle()
            self._index_new_lines()
            name = record.get("experiment_id")
            if isinstance(name, str) and (there := self._index.by_id(name)) is not None:
                # Imported in the meantime.
                return there
            offset = self._log.append(line)
            entry = entry_from_record(self._index.count(), offset, len(line), Line(record, verified=True))
            self._index_appended(entry)
            if self.meta.early:
                self._take_in_meta()
        return entry

    def _index_appended(self, entry: Entry) -> None:
        """Index a line that stands in the log, whatever it takes: an experiment without it would be written again."""
        end = self._log.committed
        try:
            if not self._index.extend(entry.offset, end, [entry], mark_of(self._log, end)):
                self._index_new_lines()
        except (sqlite3.Error, CollectorError) as error:
            logger.warning("%s failed (%s): the log is indexed anew, in memory", INDEX_NAME, error)
            self._index.close()
            self._index = SqliteIndex(None, self.record)
            self._index_new_lines()
            self._show(self.meta.numbers())

    def _amend(self, entry: Entry, record: Record) -> Entry:
        with self._log_lock:
            self._show(self.meta.amend(self._subject(entry), record, _now()))
        return self._index.by_number(entry.number) or entry

    def annotate(self, found: Entry | str, change: Callable[[Annotation], Annotation]) -> None:
        """Say something else of an experiment; on disk when this returns.

        Args:
            found: its line, or the id of one that runs.
            change: what is said now -> what is to be said.

        Raises:
            ReadOnlyError: the store was opened for reading only.
            RetryError: it could not be written.
        """
        if self.read_only:
            raise ReadOnlyError(f"the store {self.path} was opened for reading only: it takes no annotations")
        with self._log_lock:
            if isinstance(found, str):
                found = self._index.by_id(found) or found
            before = self.annotation(found)
            after = change(before)
            if after == before:
                return
            subject: Subject = {"experiment_id": found} if isinstance(found, str) else self._subject(found)
            self._show(self.meta.annotate(subject, after, _now()))
        self.watchers.changed()

    def take_in(self, group: list[Candidate], tally: Tally) -> None:
        """Append lines of another store that are not here yet; on disk when this returns.

        Raises:
            ReadOnlyError: the store was opened for reading only.
            RetryError: none of these could be written.
        """
        if self._ingest is None:
            raise ReadOnlyError(f"the store {self.path} was opened for reading only: it takes no experiments")
        with self._log_lock:
            self._log.settle()
            self._index_new_lines()
            running = self._ingest.running()
            digests = self._digests() if any(not item.experiment_id for item in group) else set()
            fresh: dict[str | bytes, Candidate] = {}
            present = 0
            for item in group:
                key = item.experiment_id or item.digest
                if item.experiment_id in running:
                    tally.reject(item.place, f"experiment {item.experiment_id} is running here")
                elif key in fresh or key in digests or self._index.by_id(item.experiment_id) is not None:
                    present += 1
                else:
                    fresh[key] = item
            first = self._index.count()
            if fresh:
                self._log.append(b"".join(item.text for item in fresh.values()))
                self._index_new_lines()
            tally.imported += len(fresh)
            tally.already_present += present
            for number, item in enumerate(fresh.values(), first):
                entry = self._index.by_number(number)
                if item.annotation != Annotation() and entry is not None:
                    self._show(self.meta.annotate(self._subject(entry), item.annotation, _now()))
            if self.meta.early:
                self._take_in_meta()
        self.watchers.changed()

    def _digests(self) -> set[bytes]:
        """Of all lines without an id."""
        found: set[bytes] = set()
        for start in range(0, self._index.count(), 1000):
            for entry in self._index.page(start, 1000, descending=False):
                if not entry.experiment_id and not entry.corrupt:
                    found.add(digest_of(self._log.read(entry.offset, entry.length)))
        return found

    def check(self, checked: Checked) -> Iterator[Finding]:
        """Read everything that is committed now, and tell what is wrong: see `collector.fsck`."""
        self.refresh()
        meta_size, log_size, count = self.meta.size, self._log.committed, self._index.count()
        directory = self.path.parent
        if log_size:
            yield from check_log(self.path, log_size, checked)
        if checked.lines != count and log_size == self._log.committed:
            message = f"{count} lines are served, {checked.lines} are in the file: restart the collector"
            yield Finding("INDEX_DISAGREES", "ERROR", LOG_NAME, message)
        if meta_size:
            yield from check_meta(directory / META_NAME, meta_size, self._is_known, checked)
        if self.read_only and self._log.size() > log_size:
            message = "bytes behind the last newline, never acknowledged: set aside when the store is next written"
            yield Finding("TORN_TAIL", "WARNING", LOG_NAME, message, log_size)
        checked.running = len(self.running())
        yield from check_events(directory / INFLIGHT_NAME, checked)
        yield from check_set_aside(directory)

    def _is_known(self, subject: Subject) -> bool:
        return self._place(subject) is not None or str(subject.get("experiment_id")) in self.running()

    def annotation(self, found: Entry | str) -> Annotation:
        """What is said of an experiment."""
        if isinstance(found, str):
            return self.meta.early.get(found, Annotation())
        return self.meta.annotations.get(found.number, Annotation())

    def _subject(self, entry: Entry) -> Subject:
        if entry.experiment_id:
            return {"number": entry.number, "experiment_id": entry.experiment_id.lower()}
        return {"number": entry.number, "line": self._line_sum(entry)}

    def _line_sum(self, entry: Entry) -> str:
        total = 0
        for chunk in self._log.chunks(entry.offset, entry.offset + entry.length):
            total = google_crc32c.extend(total, chunk)
        return f"{total:08x}"

    def _place(self, subject: Subject) -> int | None:
        """The number that a subject of the meta file has now. Another log in the same place gives it none."""
        number, name = subject.get("number"), subject.get("experiment_id")
        entry = self._index.by_number(number) if isinstance(number, int) else None
        if isinstance(name, str):
            if entry is None or entry.experiment_id.lower() != name:
                entry = self._index.by_id(name)
            return None if entry is None else entry.number
        if entry is None or entry.experiment_id or self._line_sum(entry) != subject.get("line"):
            return None
        return entry.number

    def _take_in_meta(self) -> None:
        self._show(self.meta.refresh())

    def _forget_what_is_not_said(self) -> None:
        """The index of before may know what a meta file said that is not there any more."""
        annotated, amended = self._index.spoken_of()
        said = self.meta.numbers()
        for number in annotated - said:
            self._index.annotate(number, Annotation())
        if not amended <= said:
            self._index.spoil()
            self._renew_index()

    def _show(self, numbers: set[int]) -> None:
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

    # --- reading ---

    def refresh(self) -> None:
        """Take in whole lines that another program has appended; while we append ourselves there is nothing to see."""
        more = self._log.has_more() or (self.read_only and self.meta.has_more())
        if more and self._log_lock.acquire(blocking=False):
            try:
                self._log.refresh()
                self._index_new_lines()
                self._take_in_meta()
            finally:
                self._log_lock.release()

    def index(self) -> SqliteIndex:
        """What is known of every line, as of now."""
        if self._index.unusable():
            self._renew_index()
        self.refresh()
        return self._index

    def _renew_index(self) -> None:
        with self._log_lock:
            if self._index.unusable():
                logger.warning("%s was damaged or removed: it is made anew", INDEX_NAME)
                self._index.close()
                self._index = open_index(self._log, self.record, read_only=self.read_only)
                self._index_new_lines()
                self._show(self.meta.numbers())

    def committed_size(self) -> int:
        """Bytes of the log up to the end of its last whole line."""
        return self._log.committed

    def chunks(self, start: int, end: int) -> Iterator[bytes]:
        """The log's bytes as they stand."""
        return self._log.chunks(start, end)

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
            return decode_line(self._log.read(entry.offset, entry.length)).record
        except LineError as error:
            where = f"the line at byte {entry.offset} of {self.path}"
            raise CorruptLineError(f"experiment {entry.number} cannot be read: {where}: {error}") from None

    def running(self) -> dict[str, Running]:
        """Experiments without a line, by id."""
        if self._ingest is not None:
            return self._ingest.running()
        running = self._events.running()
        index = self.index()
        return {name: state for name, state in running.items() if index.by_id(name) is None}

    def events(self, experiment_id: str, offset: int, *, max_bytes: int) -> list[Stored]:
        """Stored events of an experiment: see `collector.batches.read_batches`."""
        if isinstance(self._events, Inflight):
            return self._events.read(experiment_id, offset, max_bytes=max_bytes)
        # One that has its line is read for the last time.
        ended = self._index.by_id(experiment_id) is not None
        return self._events.read(experiment_id, offset, max_bytes=max_bytes, fresh=ended)

    def _index_new_lines(self) -> None:
        """Bring the index up to the end of the log, in steps that each are there for good."""
        end = self._log.committed
        while (start := self._index.indexed()) < end:
            corrupt = sum(self._index_from(start, end))
            if start > 0:
                self._warn_of_corrupt_lines(corrupt)

    def _index_from(self, start: int, end: int) -> Iterator[int]:
        """Index what stands between two places; yields how many corrupt lines each step had."""
        number = self._index.count()
        entries: list[Entry] = []
        step_start, size = start, 0
        for offset, length, line in iterate_lines(self._log.chunks(start, end), start, MAX_LINE_BYTES):
            if line is None or not is_blank(line):
                found = self._entries_of(number, offset, length, line)
                number += len(found)
                entries += found
            size += length
            here = offset + length
            if size >= _STEP_BYTES or here >= end:
                if not self._index.extend(step_start, here, entries, mark_of(self._log, here)):
                    # Another process was faster: go on where it is.
                    return
                yield sum(entry.corrupt for entry in entries)
                entries, step_start, size = [], here, 0

    def _warn_of_corrupt_lines(self, count: int) -> None:
        if count and (first := self._index.first_corrupt()) is not None:
            logger.warning(
                "%s: %d of its lines cannot be read, the first is number %d: %s",
                self.path,
                count,
                first.number,
                first.error,
            )

    def _entries_of(self, number: int, offset: int, length: int, line: bytes | None) -> list[Entry]:
        entry = entry_from_line(number, offset, length, line)
        pieces = split_lost_newlines(line) if entry.corrupt and line is not None else []
        if len(pieces) < 2:
            return [entry]
        entries = []
        for place, piece in enumerate(pieces):
            # All but the last end in the byte that was a newline.
            text = piece if piece is pieces[-1] else piece[:-1]
            entries.append(entry_from_line(number + place, offset, len(text), text))
            offset += len(piece)
        return entries


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def open_store(
    log_dir: Path,
    codec: Codec,
    *,
    read_only: bool = False,
    allow_network_fs: bool = False,
    layer: FileLayer | None = None,
    lease_s: float = DEFAULT_LEASE_S,
) -> Store:
    """Open the store of a directory: for writing, with the lock, or for reading only, touching nothing.

    Args:
        log_dir: made where it is not there and the store is to be written.
        codec: what knows events (`collector.fold`).
        read_only: take no lock, repair nothing; the directory need not exist.
        allow_network_fs: write on a network file system.
        layer: the operating system's calls, for tests.
        lease_s: an experiment that is not heard of for so long gets its line, as LOST.

    Raises:
        LockedError: another process holds it.
        NetworkFileSystemError: it is on a network file system, and is to be written.
        StoreAccessError: it cannot be used.
        PermissionError: it cannot be written.
    """
    if log_dir.exists() and not log_dir.is_dir():
        raise StoreAccessError(f"the log directory {log_dir} is not a directory")
    if read_only:
        return Store(log_dir, codec, None, layer, lease_s)
    try:
        kind = network_file_system(log_dir)
    except (OSError, RuntimeError) as error:  # Links in a circle.
        raise StoreAccessError(f"the log directory {log_dir} cannot be used: {error}; choose another") from None
    if kind is not None and not allow_network_fs:
        raise NetworkFileSystemError(
            f"the log directory {log_dir} is on a network file system ({kind}), where locks and syncs cannot be relied "
            "on: use a local directory, or a collector on another machine (--collector HOST:PORT)"
        )
    try:
        log_dir.mkdir(parents=True, exist_ok=True)
    except PermissionError:
        raise
    except OSError as error:
        raise StoreAccessError(f"the log directory {log_dir} cannot be made: {error.strerror}") from None
    lock = StoreLock.acquire(log_dir / LOCK_NAME)
    if lock is None:
        holder = read_holder(log_dir / LOCK_NAME)
        raise LockedError(f"the store {log_dir} is held by {holder or 'another process'}: stop that, or use it instead")
    try:
        return Store(log_dir, codec, lock, layer, lease_s)
    except BaseException:
        lock.release()
        raise


__all__ = ["INFLIGHT_NAME", "LOCK_NAME", "LOG_NAME", "Store", "open_store"]
