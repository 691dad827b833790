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

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from collector.annotations import Annotation
from collector.batches import Batch, Running, Stored
from collector.catalog import Catalog
from collector.errors import ReadOnlyError
from collector.files import FileLayer
from collector.index import Entry
from collector.index_records import entry_from_record
from collector.index_sqlite import SqliteIndex
from collector.inflight import Inflight
from collector.lease import DEFAULT_LEASE_S
from collector.ledger import Codec, Done, Ledger, Receipt, receipt_of
from collector.lines import Line, encode_line
from collector.lock import StoreLock
from collector.names import INFLIGHT_NAME, LOCK_NAME, LOG_NAME
from collector.observer import SILENT, StoreObserver
from collector.opening import check_directory, take_lock
from collector.records import Record
from collector.snapshot import Snapshot
from collector.subjects import Subject, subject_of
from collector.watchers import Watchers

if TYPE_CHECKING:
    # What only writers and checks need: `qlog list` opens a store for one question.
    from collector.fsck import Checked, Finding
    from collector.importing import Candidate, Tally
    from collector.ingest import Ingest


class Store:
    """An open store. Make one with `open_store`."""

    def __init__(
        self,
        log_dir: Path,
        codec: Codec,
        lock: StoreLock | None,
        layer: FileLayer | None,
        lease_s: float = DEFAULT_LEASE_S,
        observer: StoreObserver = SILENT,
    ) -> None:
        self.lease_s = lease_s
        self.path = log_dir / LOG_NAME
        self.read_only = lock is None
        self.watchers = Watchers()
        self._lock = lock
        self._observer = observer
        # Who only reads has a snapshot and no writer.
        self._ingest: Ingest | None = None
        self._events: Inflight | Snapshot
        with ExitStack() as files:
            self._catalog = Catalog(log_dir, read_only=self.read_only, layer=layer, observer=observer)
            files.callback(self._catalog.close)
            self.meta = self._catalog.meta
            if self.read_only:
                self._events = Snapshot(log_dir / INFLIGHT_NAME)
            else:
                self._events = Inflight(log_dir / INFLIGHT_NAME, observer)
            files.callback(self._events.close)
            if isinstance(self._events, Inflight):
                self._ingest = self._writing(self._events, codec, lease_s)
                self._ingest.start()
            self._files = files.pop_all()

    def _writing(self, events: Inflight, codec: Codec, lease_s: float) -> "Ingest":
        from collector.ingest import Ingest

        ledger = Ledger(self._catalog.find, self._append, self._amend, self.watchers.changed, self.watchers.behind)
        return Ingest(events, ledger, codec, lease_s=lease_s, observer=self._observer)

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
        self._writer("experiments").submit(batch, done)

    def status(self, experiment_id: str) -> Receipt:
        """What is on disk of an experiment."""
        if self._ingest is not None:
            self.refresh()
            return self._ingest.status(experiment_id)
        state = self._events.running().get(experiment_id)
        entry = self.index().by_id(experiment_id)
        stored = 0 if state is None else state.committed
        return Receipt(stored) if entry is None else receipt_of(entry, stored)

    def queue(self) -> tuple[int, int]:
        """Batches that wait to be stored, and their bytes."""
        return (0, 0) if self._ingest is None else self._ingest.queue()

    def annotate(self, found: Entry | str, change: Callable[[Annotation], Annotation]) -> None:
        """Say something else of an experiment; on disk when this returns.

        Args:
            found: its line, or the id of one that runs.
            change: what is said now -> what is to be said.

        Raises:
            ReadOnlyError: the store was opened for reading only.
            RetryError: it could not be written.
        """
        self._writer("annotations")
        catalog = self._catalog
        with catalog.lock:
            if isinstance(found, str):
                found = catalog.find(found) or found
            before = self.annotation(found)
            after = change(before)
            if after == before:
                return
            subject: Subject = {"experiment_id": found} if isinstance(found, str) else self._subject(found)
            catalog.show(self.meta.annotate(subject, after, _now()))
        self.watchers.changed()

    def take_in(self, group: "list[Candidate]", tally: "Tally") -> None:
        """Append lines of another store that are not here yet; on disk when this returns.

        Raises:
            ReadOnlyError: the store was opened for reading only.
            RetryError: none of these could be written.
        """
        from collector.merging import append_all, fresh_ones

        running = self._writer("experiments").running
        catalog = self._catalog
        with catalog.lock:
            catalog.settle()
            fresh, present = fresh_ones(catalog, running(), group, tally)
            annotations = append_all(catalog, fresh)
            tally.imported += len(fresh)
            tally.already_present += present
            for number, annotation in annotations:
                if (entry := catalog.known().by_number(number)) is not None:
                    catalog.show(self.meta.annotate(self._subject(entry), annotation, _now()))
            if self.meta.early:
                catalog.take_in_meta()
        self.watchers.changed()

    def _writer(self, what: str) -> "Ingest":
        if self._ingest is None:
            raise ReadOnlyError(f"the store {self.path} was opened for reading only: it takes no {what}")
        return self._ingest

    def _append(self, records: Sequence[Record]) -> list[Entry]:
        catalog = self._catalog
        with catalog.lock:
            catalog.settle()
            fresh: list[tuple[Record, bytes]] = []
            places: list[int | Entry] = []
            for record in records:
                name = record.get("experiment_id")
                # Imported in the meantime.
                there = catalog.find(name) if isinstance(name, str) else None
                places.append(len(fresh) if there is None else there)
                if there is None:
                    fresh.append((record, encode_line(record)))
            done = self._append_lines(fresh) if fresh else []
        for record, _ in fresh:
            self._tell_of_dropped(record)
        return [done[place] if isinstance(place, int) else place for place in places]

    def _append_lines(self, fresh: Sequence[tuple[Record, bytes]]) -> list[Entry]:
        """Lines by one write and one sync; with the lock held."""
        catalog = self._catalog
        offset = catalog.log.append(b"".join(line for _, line in fresh))
        entries = []
        for number, (record, line) in enumerate(fresh, catalog.known().count()):
            entries.append(entry_from_record(number, offset, len(line), Line(record, verified=True)))
            offset += len(line)
        catalog.add(entries)
        return entries

    def _amend(self, entry: Entry, record: Record) -> Entry:
        catalog = self._catalog
        with catalog.lock:
            catalog.show(self.meta.amend(self._subject(entry), record, _now()))
        self._tell_of_dropped(record)
        return catalog.known().by_number(entry.number) or entry

    def _subject(self, entry: Entry) -> Subject:
        return subject_of(entry, self._catalog.log)

    def _tell_of_dropped(self, record: Record) -> None:
        dropped = record.get("dropped")
        for kind, count in dropped.items() if isinstance(dropped, dict) else ():
            if isinstance(count, int):
                self._observer.dropped(kind, count)

    # --- reading ---

    def refresh(self) -> None:
        """Take in what another program has appended: see `Catalog.refresh`."""
        self._catalog.refresh()

    def index(self) -> SqliteIndex:
        """What is known of every line, as of now."""
        return self._catalog.index()

    def committed_size(self) -> int:
        """Bytes of the log up to the end of its last whole line."""
        return self._catalog.log.committed

    def chunks(self, start: int, end: int) -> Iterator[bytes]:
        """The log's bytes as they stand."""
        return self._catalog.log.chunks(start, end)

    def record(self, entry: Entry) -> Record:
        """The full record of a line.

        Raises:
            CorruptLineError: the line is damaged.
        """
        return self._catalog.record(entry)

    def annotation(self, found: Entry | str) -> Annotation:
        """What is said of an experiment."""
        return self._catalog.annotation(found)

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
        ended = self._catalog.find(experiment_id) is not None
        return self._events.read(experiment_id, offset, max_bytes=max_bytes, fresh=ended)

    def check(self, checked: "Checked") -> "Iterator[Finding]":
        """Read everything that is committed now, and tell what is wrong: see `collector.fsck`."""
        from collector.checking import check_all

        self.refresh()
        checked.running = len(self.running())
        yield from check_all(self._catalog, self._events, lambda name: name in self.running(), checked)


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
    observer: StoreObserver = SILENT,
) -> Store:
    """Open the store of a directory: for writing, with the lock, or for reading only, touching nothing.

    Args:
        log_dir: made where it is not there and the store is to be written.
        codec: what knows events (`collector.fold`).
        read_only: take no lock, repair nothing; the directory need not exist.
        allow_network_fs: write on a network file system.
        layer: the operating system's calls, for tests.
        lease_s: an experiment that is not heard of for so long gets its line, as LOST.
        observer: told of what the store does to its disk.

    Raises:
        LockedError: another process holds it.
        NetworkFileSystemError: it is on a network file system, and is to be written.
        StoreAccessError: it cannot be used.
        PermissionError: it cannot be written.
    """
    check_directory(log_dir)
    if read_only:
        return Store(log_dir, codec, None, layer, lease_s, observer)
    lock = take_lock(log_dir, allow_network_fs=allow_network_fs)
    try:
        return Store(log_dir, codec, lock, layer, lease_s, observer)
    except BaseException:
        lock.release()
        raise


__all__ = ["INFLIGHT_NAME", "LOCK_NAME", "LOG_NAME", "Store", "open_store"]
