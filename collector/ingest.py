"""The one thread that writes: batches of events in, acknowledgements out, an experiment's line at its end.

Commits are grouped by nature: what arrives while one commit waits for the disk goes into the next, in one transaction
with one sync. A window of 20 ms in which more is waited for was measured against that (8 senders, batches of 96
statistics): one sender's batch then waited 28 ms for its answer instead of 3 ms, eight that wait for each answer got
half as many through; with all of them sending ahead the groups are as large either way.

An experiment that finished is folded into its line right after the commit that holds its finish, so lines stand in the
order of those commits. A line that could not be written is tried again, by itself and when its finish is repeated.
"""

import logging
import threading

from collector import limits
from collector.batches import Batch, Running, joined
from collector.endings import Endings
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
from collector.inflight import Inflight
from collector.lease import DEFAULT_LEASE_S
from collector.ledger import Codec, Done, Ledger, Receipt, is_unfinished
from collector.observer import SILENT, StoreObserver

logger = logging.getLogger(__name__)


class Ingest:
    """The writer; `start` it, `submit` from any thread, `stop` it."""

    def __init__(
        self,
        inflight: Inflight,
        ledger: Ledger,
        codec: Codec,
        *,
        lease_s: float = DEFAULT_LEASE_S,
        observer: StoreObserver = SILENT,
    ) -> None:
        self._observer = observer
        self._inflight = inflight
        self._ledger = ledger
        self._codec = codec
        self._endings = Endings(inflight, ledger, codec, lease_s, observer)
        self._queue: list[tuple[Batch, Done]] = []
        self._queued_bytes = 0
        self._stopping = False
        lock = threading.Lock()
        # The writer waits for something to do, senders for room. Few wait at a time, and most need not be woken.
        self._wake, self._room = threading.Condition(lock), threading.Condition(lock)
        self._idle = False
        self._crowded = 0
        self._thread = threading.Thread(target=self._run, name="collector-writer", daemon=True)

    def start(self) -> None:
        """Finish what a crash left, then take batches."""
        self._endings.recover()
        self._thread.start()

    def stop(self) -> None:
        """Commit what was submitted, then end."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
            self._room.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def queue(self) -> tuple[int, int]:
        """Batches that wait to be taken up, and the bytes of all that are not stored yet."""
        return len(self._queue), self._queued_bytes

    def running(self) -> dict[str, Running]:
        """The experiments without a line, by id."""
        return dict(self._endings.running)

    def status(self, experiment_id: str) -> Receipt:
        """What is on disk of an experiment; nothing of one never heard of."""
        return self._endings.status(experiment_id)

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
                self._crowded += 1
                self._room.wait()
                self._crowded -= 1
            if self._stopping:
                raise DrainingError("the collector is stopping: send again in a moment")
            self._queue.append((batch, done))
            self._queued_bytes += size
            if self._idle:
                self._idle = False
                self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                if not self._queue and not self._stopping:
                    self._idle = True
                    self._wake.wait(self._endings.wait_s())
                    self._idle = False
                group, self._queue = self._queue, []
                stopping = self._stopping
            if group:
                self._commit_safely(group)
                with self._wake:
                    self._queued_bytes -= sum(len(batch.payload) for batch, _ in group)
                    if self._crowded:
                        self._room.notify_all()
            elif stopping:
                self._endings.housekeep(stopping=True)
                return
            self._endings.housekeep(stopping=False)

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
        for name in {batch.experiment_id for batch, _ in group}:
            self._endings.heard(name)
        for batch, done in group:
            rejection = None
            try:
                self._admit(batch, staged, added)
            except CollectorError as error:
                rejection = error
            answers.append((batch, done, rejection))
        failure: RetryError | None = None
        if added:
            try:
                self._inflight.add(joined(added))
            except RetryError as error:
                logger.error("%s", error)
                failure = error
            else:
                self._observer.committed(len(added), sum(batch.count for batch in added))
                for name, state in staged.items():
                    self._endings.stored(name, state)
                self._ledger.changed()
        finished = [name for name, state in staged.items() if state.finished] if failure is None else []
        waiting = self._endings.waits
        retried = [b.experiment_id for b, _, e in answers if e is None and b.finishes and waiting(b.experiment_id)]
        failed = self._endings.fold(tuple(dict.fromkeys((*finished, *retried))))
        receipts: dict[str, Receipt] = {}
        for batch, done, rejection in answers:
            done(rejection or failure or self._receipt(batch, failed, receipts))

    def _receipt(
        self, batch: Batch, failed: dict[str, RetryError], receipts: dict[str, Receipt]
    ) -> Receipt | CollectorError:
        """The answer to a batch that was admitted and stored; a finish is only acknowledged with its line."""
        name = batch.experiment_id
        if batch.finishes and (error := failed.get(name)) is not None:
            return error
        found = receipts.get(name)
        if found is None:
            found = receipts[name] = self.status(name)
        return found

    def _admit(self, batch: Batch, staged: dict[str, Running], added: list[Batch]) -> None:
        """Put the part of a batch that is new to what is to be stored.

        Raises:
            CollectorError: the batch cannot be taken.
        """
        name, end = batch.experiment_id, batch.offset + batch.count
        state = staged.get(name)
        if state is None:
            state = self._known_state(batch, len(staged))
        if state is None or batch.count == 0 or end <= state.committed:
            return
        if batch.offset > state.committed:
            raise OffsetGapError(name, batch.offset, state.committed)
        if state.finished:
            raise EndedError(f"experiment {name} has finished: it takes no more events")
        if batch.offset < state.committed:
            skip = state.committed - batch.offset
            payload = self._codec.without_first(batch.payload, skip)
            batch = Batch(
                name,
                state.committed,
                batch.count - skip,
                min(batch.tensors, batch.count - skip),
                batch.finishes,
                payload,
            )
        after = state.with_batch(batch)
        self._check_bounds(batch, after)
        added.append(batch)
        staged[name] = after

    def _known_state(self, batch: Batch, begun: int) -> Running | None:
        """How far the experiment of a batch has come; None where it has ended, and the batch says nothing new."""
        name = batch.experiment_id
        entry = self._endings.line_of(name)
        if entry is not None and not is_unfinished(entry):
            if batch.count and (entry.events is None or batch.offset + batch.count > entry.events):
                raise EndedError(f"experiment {name} has ended, with number {entry.number}: it takes no more events")
            return None
        running = self._endings.running
        if entry is None and name not in running and len(running) + begun >= limits.MAX_RUNNING:
            raise StoreFullError(f"{limits.MAX_RUNNING} experiments are running already: try again later")
        return self._endings.state(name)

    def _check_bounds(self, batch: Batch, after: Running) -> None:
        if (
            after.committed <= limits.MAX_EVENTS
            and after.tensors <= limits.MAX_TENSORS
            and after.size_bytes <= limits.MAX_EXPERIMENT_BYTES
        ):
            return
        for what, value, most in (
            ("events", after.committed, limits.MAX_EVENTS),
            ("statistics", after.tensors, limits.MAX_TENSORS),
            ("bytes of events", after.size_bytes, limits.MAX_EXPERIMENT_BYTES),
        ):
            # A finish is taken even so: the experiment has to end.
            if value > most and not (batch.finishes and batch.count == 1):
                raise InvalidRequestError("events", f"experiment {batch.experiment_id}: more than {most} {what}")


__all__ = ["Codec", "Done", "Ingest", "Ledger", "Receipt"]
