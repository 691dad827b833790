"""The one thread that writes: batches of events in, acknowledgements out, an experiment's line at its end.

Commits are grouped by nature: what arrives while one commit waits for the disk goes into the next, in one transaction
with one sync. An experiment that finished is folded into its line right after the commit that holds its finish, so
lines stand in the order of those commits. A line that could not be written is tried again, by itself and when its
finish is repeated.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from collector import limits
from collector.batches import Batch, Running
from collector.errors import (
    CollectorError,
    DrainingError,
    EndedError,
    InvalidRequestError,
    OffsetGapError,
    RetryError,
    StoreFullError,
    StoreUnavailableError,
)
from collector.index import Entry
from collector.inflight import Inflight
from collector.records import EVENTS_KEY, Record

logger = logging.getLogger(__name__)

# How often lines that could not be written, and events kept for slow watchers, are looked at again.
_HOUSEKEEPING_S = 1.0
# For how long the events of an experiment that has its line are kept: for those who read the files themselves, whom
# nobody here knows of, and at most for watchers who have not read them all.
_KEEP_S, _KEEP_FOR_WATCHERS_S = 3.0, 10.0


@dataclass(frozen=True, slots=True)
class Receipt:
    """What is on disk.

    Attributes:
        committed_offset: all events before it.
        number: of the experiment's line, once it has one.
        finished: it has.
    """

    committed_offset: int
    number: int | None = None
    finished: bool = False


Done = Callable[[Receipt | CollectorError], None]


@dataclass(frozen=True)
class Codec:
    """What the writer asks of those who know what events are.

    Attributes:
        fold_record: (experiment id, its batches as (payload, count)) -> its record.
        without_first: (payload, n) -> the payload without its first n events.
    """

    fold_record: Callable[[str, Iterable[tuple[bytes, int]]], Record]
    without_first: Callable[[bytes, int], bytes]


@dataclass(frozen=True)
class Ledger:
    """What the writer asks of the store around it.

    Attributes:
        find: the line of an experiment, if it has one.
        append: write a record's line and index it; RetryError where it cannot be.
        changed: some experiments have more events, or their line.
        watchers_behind: (experiment id, number, events) -> somebody who follows it has not read all of them.
    """

    find: Callable[[str], Entry | None]
    append: Callable[[Record], Entry]
    changed: Callable[[], None]
    watchers_behind: Callable[[str, int, int], bool]


class Ingest:
    """The writer; `start` it, `submit` from any thread, `stop` it."""

    def __init__(self, inflight: Inflight, ledger: Ledger, codec: Codec) -> None:
        self._inflight = inflight
        self._ledger = ledger
        self._codec = codec
        self._running = inflight.running()
        # Experiments that finished and could not be given their line yet, and when that is tried again.
        self._unfolded: set[str] = set()
        self._next_try = 0.0
        # Experiments that have their line, whose events are still there: since when.
        self._kept: dict[str, tuple[float, Entry]] = {}
        self._queue: deque[tuple[Batch, Done]] = deque()
        self._queued_bytes = 0
        self._stopping = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="collector-writer", daemon=True)

    def start(self) -> None:
        """Finish what a crash left, then take batches."""
        for experiment_id in list(self._running):
            if (entry := self._ledger.find(experiment_id)) is not None:
                del self._running[experiment_id]
                self._kept[experiment_id] = (float("-inf"), entry)
        self._unfolded.update(name for name, state in self._running.items() if state.finished)
        self._housekeep()
        self._thread.start()

    def stop(self) -> None:
        """Commit what was submitted, then end."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def running(self) -> dict[str, Running]:
        """The experiments without a line, by id."""
        return dict(self._running)

    def status(self, experiment_id: str) -> Receipt:
        """What is on disk of an experiment; nothing of one never heard of."""
        # A line is indexed before its experiment stops running: asked in this order, one of the two answers.
        state = self._running.get(experiment_id)
        entry = self._ledger.find(experiment_id)
        if entry is not None:
            return Receipt(entry.events or 0, entry.number, finished=True)
        return Receipt(0 if state is None else state.committed)

    def submit(self, batch: Batch, done: Done) -> None:
        """Queue a batch; wait while too much is queued.

        Args:
            batch: checked events (`collector.validate`); none for a heartbeat.
            done: called once, from the writer's thread, with the receipt or the error; must not wait.

        Raises:
            DrainingError: the writer is stopping.
        """
        size = len(batch.payload)
        with self._wake:
            while self._queued_bytes > limits.MAX_PENDING_BYTES and not self._stopping:
                self._wake.wait()
            if self._stopping:
                raise DrainingError("the collector is stopping: send again in a moment")
            self._queue.append((batch, done))
            self._queued_bytes += size
            self._wake.notify_all()

    def _run(self) -> None:
        while True:
            with self._wake:
                waiting = bool(self._unfolded or self._kept)
                if not self._queue and not self._stopping:
                    self._wake.wait(_HOUSEKEEPING_S if waiting else None)
                group = list(self._queue)
                self._queue.clear()
                stopping = self._stopping
            if group:
                self._commit_safely(group)
                with self._wake:
                    self._queued_bytes -= sum(len(batch.payload) for batch, _ in group)
                    self._wake.notify_all()
            elif stopping:
                self._housekeep()
                return
            self._housekeep()

    def _commit_safely(self, group: list[tuple[Batch, Done]]) -> None:
        try:
            self._commit(group)
        except Exception:  # The one writer must outlive any mistake in it; senders keep what has no receipt.
            logger.exception("committing %d batches failed", len(group))
            error = StoreUnavailableError("the collector could not store events: see its log")
            for _, done in group:
                done(error)

    def _commit(self, group: list[tuple[Batch, Done]]) -> None:
        staged: dict[str, Running] = {}
        added: list[Batch] = []
        answers: list[tuple[Batch, Done, CollectorError | None]] = []
        for batch, done in group:
            try:
                new = self._admit(batch, staged)
            except CollectorError as error:
                answers.append((batch, done, error))
                continue
            if new is not None:
                added.append(new)
                staged[new.experiment_id] = staged.get(new.experiment_id, self._state(new)).with_batch(new)
            answers.append((batch, done, None))
        failure: RetryError | None = None
        if added:
            try:
                self._inflight.add(added)
            except RetryError as error:
                logger.error("%s", error)
                failure = error
            else:
                self._running.update(staged)
                self._ledger.changed()
        finished = [name for name, state in staged.items() if state.finished] if failure is None else []
        retried = [
            b.experiment_id for b, _, e in answers if e is None and b.finishes and b.experiment_id in self._unfolded
        ]
        folding = {name: self._fold(name) for name in dict.fromkeys((*finished, *retried))}
        for batch, done, rejection in answers:
            done(rejection or failure or self._receipt(batch, folding))

    def _receipt(self, batch: Batch, folding: dict[str, RetryError | None]) -> Receipt | CollectorError:
        """The answer to a batch that was admitted and stored; a finish is only acknowledged with its line."""
        if batch.finishes and (error := folding.get(batch.experiment_id)) is not None:
            return error
        return self.status(batch.experiment_id)

    def _state(self, batch: Batch) -> Running:
        return self._running.get(batch.experiment_id, Running())

    def _admit(self, batch: Batch, staged: dict[str, Running]) -> Batch | None:
        """The part of a batch that is new; None where nothing is.

        Raises:
            CollectorError: the batch cannot be taken.
        """
        end = batch.offset + batch.count
        entry = self._ledger.find(batch.experiment_id)
        if entry is not None:
            if batch.count and (entry.events is None or end > entry.events):
                raise EndedError(
                    f"experiment {batch.experiment_id} has ended, with number {entry.number}: it takes no more events"
                )
            return None
        if batch.experiment_id not in self._running and len(self._running) + len(staged) >= limits.MAX_RUNNING:
            raise StoreFullError(f"{limits.MAX_RUNNING} experiments are running already: try again later")
        state = staged.get(batch.experiment_id, self._state(batch))
        if batch.count == 0 or end <= state.committed:
            return None
        if batch.offset > state.committed:
            raise OffsetGapError(batch.experiment_id, batch.offset, state.committed)
        if state.finished:
            raise EndedError(f"experiment {batch.experiment_id} has finished: it takes no more events")
        if batch.offset < state.committed:
            skip = state.committed - batch.offset
            payload = self._codec.without_first(batch.payload, skip)
            batch = Batch(
                batch.experiment_id,
                state.committed,
                batch.count - skip,
                min(batch.tensors, batch.count - skip),
                batch.finishes,
                payload,
            )
        after = state.with_batch(batch)
        self._check_bounds(batch, after)
        return batch

    def _check_bounds(self, batch: Batch, after: Running) -> None:
        for what, value, most in (
            ("events", after.committed, limits.MAX_EVENTS),
            ("statistics", after.tensors, limits.MAX_TENSORS),
            ("bytes of events", after.size_bytes, limits.MAX_EXPERIMENT_BYTES),
        ):
            # A finish is taken even so: the experiment has to end.
            if value > most and not (batch.finishes and batch.count == 1):
                raise InvalidRequestError("events", f"experiment {batch.experiment_id}: more than {most} {what}")

    def _fold(self, experiment_id: str) -> RetryError | None:
        """Give a finished experiment its line; the error where that cannot be done now."""
        try:
            record = self._codec.fold_record(experiment_id, self._inflight.read_all(experiment_id))
            if record.get(EVENTS_KEY) != self._running[experiment_id].committed:
                raise StoreUnavailableError(f"events of experiment {experiment_id} are missing: restart the collector")
            entry = self._ledger.append(record)
        except RetryError as error:
            logger.error("the line of experiment %s: %s", experiment_id, error)
            self._defer(experiment_id)
            return error
        except Exception:  # As in _commit_safely: its events stay on disk.
            logger.exception("the line of experiment %s", experiment_id)
            self._defer(experiment_id)
            return StoreUnavailableError(f"experiment {experiment_id} could not be written: see the collector's log")
        self._unfolded.discard(experiment_id)
        del self._running[experiment_id]
        self._kept[experiment_id] = (time.monotonic(), entry)
        self._ledger.changed()
        return None

    def _defer(self, experiment_id: str) -> None:
        self._unfolded.add(experiment_id)
        self._next_try = time.monotonic() + _HOUSEKEEPING_S

    def _housekeep(self) -> None:
        now = time.monotonic()
        if self._unfolded and (now >= self._next_try or self._stopping):
            for experiment_id in list(self._unfolded):
                self._fold(experiment_id)
        read = [name for name, (since, entry) in self._kept.items() if self._read_by_all(now - since, entry)]
        if read:
            try:
                self._inflight.remove(read)
            except RetryError as error:
                # They are removed with the next ones, or at the next start.
                logger.warning("%s", error)
                return
            for name in read:
                del self._kept[name]

    def _read_by_all(self, age_s: float, entry: Entry) -> bool:
        if self._stopping or age_s > _KEEP_FOR_WATCHERS_S:
            return True
        behind = self._ledger.watchers_behind(entry.experiment_id, entry.number, entry.events or 0)
        return age_s > _KEEP_S and not behind


__all__ = ["Codec", "Done", "Ingest", "Ledger", "Receipt"]
