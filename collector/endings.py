"""How experiments end: a finish makes a line, silence makes a line that says LOST, a late finish completes that.

For the writing thread alone, but for `status` and what it reads. A line or an amendment that could not be written is
tried again, by itself and when its finish is repeated. Events are removed after what they became is on disk:

    running --finish--> line ------------------------------> events removed once those who watch have read them
       |                                                        ^
       +-----silence--> line, LOST, unfinished --finish--> amendment
                          `-- nothing for a week: events removed; the sender, if it comes, begins anew
"""

import logging
import time
from collections.abc import Sequence

from collector.batches import Running
from collector.errors import RetryError, StoreUnavailableError
from collector.index import Entry
from collector.inflight import Inflight
from collector.lease import Leases
from collector.ledger import Codec, Ledger, Receipt, is_unfinished, receipt_of
from collector.observer import SILENT, StoreObserver
from collector.records import EVENTS_KEY, UNFINISHED_KEY, Record

logger = logging.getLogger(__name__)

# How often lines that could not be written, and events kept for slow watchers, are looked at again.
_HOUSEKEEPING_S = 1.0
# For how long the events of an experiment that has its line are kept: for those who read the files themselves, whom
# nobody here knows of, and at most for watchers who have not read them all.
_KEEP_S, _KEEP_FOR_WATCHERS_S = 3.0, 10.0
# Events of experiments whose lines are written together, at most, unless a single one has more.
_EVENTS_TOGETHER = 4096
# For how long those of one that is LOST are kept, after the last that came. Its sender has them too.
_KEEP_LOST_S = 7 * 86400.0


class Endings:
    """The experiments that have begun, until nothing is left to be done for them.

    Attributes:
        running: those without a line.
        lost: those whose line says LOST, and may be completed: what is on disk of their events.
    """

    def __init__(
        self, inflight: Inflight, ledger: Ledger, codec: Codec, lease_s: float, observer: StoreObserver = SILENT
    ) -> None:
        self._observer = observer
        self.running = inflight.running()
        self.lost: dict[str, Running] = {}
        self._inflight = inflight
        self._ledger = ledger
        self._codec = codec
        # Experiments that finished and could not be given their line yet, and when that is tried again.
        self._unfolded: set[str] = set()
        self._next_try = 0.0
        # Experiments that are over, whose events are still there: since when.
        self._kept: dict[str, tuple[float, Entry]] = {}
        self._lost_since: dict[str, float] = {}
        self._leases = Leases(lease_s)

    def recover(self) -> None:
        """Finish what a crash left. Whoever runs has a whole lease from now on."""
        for experiment_id, state in list(self.running.items()):
            if (entry := self._ledger.find(experiment_id)) is None:
                continue
            del self.running[experiment_id]
            if is_unfinished(entry):
                self.lost[experiment_id] = state
                self._lost_since[experiment_id] = time.monotonic()
            else:
                self._kept[experiment_id] = (float("-inf"), entry)
        for experiment_id, state in (*self.running.items(), *self.lost.items()):
            if state.finished:
                self._unfolded.add(experiment_id)
            elif experiment_id in self.running:
                self._leases.heard(experiment_id)
        self.housekeep(stopping=False)

    def status(self, experiment_id: str) -> Receipt:
        """What is on disk of an experiment; nothing of one never heard of."""
        # A line is indexed before its experiment stops running: asked in this order, one of the two answers.
        if (running := self.running.get(experiment_id)) is not None and not running.finished:
            return Receipt(running.committed)
        state = running or self.lost.get(experiment_id, Running())
        entry = self._ledger.find(experiment_id)
        return Receipt(state.committed) if entry is None else receipt_of(entry, state.committed)

    def state(self, experiment_id: str) -> Running:
        """How far an experiment has come that is not over."""
        return self.running.get(experiment_id) or self.lost.get(experiment_id) or Running()

    def line_of(self, experiment_id: str) -> Entry | None:
        """The line of an experiment, if it has one. For the writing thread, which alone ends what runs."""
        return None if experiment_id in self.running else self._ledger.find(experiment_id)

    def heard(self, experiment_id: str) -> None:
        """Its sender lives."""
        if experiment_id in self.running and experiment_id not in self._unfolded:
            self._leases.heard(experiment_id)

    def waits(self, experiment_id: str) -> bool:
        """Whether it has finished, and what becomes of it could not be written yet."""
        return experiment_id in self._unfolded

    def stored(self, experiment_id: str, state: Running) -> None:
        """More of its events are on disk."""
        entry = self.line_of(experiment_id)
        if entry is None:
            self.running[experiment_id] = state
            self.heard(experiment_id)
        else:
            if experiment_id not in self.lost:
                logger.info("experiment %s, number %d, was LOST and is back", experiment_id, entry.number)
            self.lost[experiment_id] = state
            self._lost_since[experiment_id] = time.monotonic()

    def fold(self, names: Sequence[str]) -> dict[str, RetryError]:
        """Give finished experiments their lines, or complete those they have; the errors of which that cannot be now.

        Lines are written together as far as memory has room: a sync of the log costs as much for one as for many.
        """
        failed: dict[str, RetryError] = {}
        group: list[str] = []
        events = 0
        for name in names:
            count = self.state(name).committed
            if group and events + count > _EVENTS_TOGETHER:
                failed |= self._fold_together(group)
                group, events = [], 0
            group.append(name)
            events += count
        return failed | self._fold_together(group)

    def _fold_together(self, names: Sequence[str]) -> dict[str, RetryError]:
        failed: dict[str, RetryError] = {}
        records: dict[str, Record] = {}
        for name in names:
            try:
                record, entry = self._record(name), self._ledger.find(name)
                if entry is None:
                    records[name] = record
                else:
                    self._ended(name, self._ledger.amend(entry, record) if is_unfinished(entry) else entry)
            except RetryError as error:
                logger.error("the line of experiment %s: %s", name, error)
                failed[name] = self._deferred(name, error)
            except Exception:  # The one writer must outlive any mistake in it; the events stay on disk.
                logger.exception("the line of experiment %s", name)
                failed[name] = self._deferred(name)
        entries: list[Entry] = []
        try:
            entries = self._ledger.append(tuple(records.values())) if records else []
        except RetryError as error:
            logger.error("the lines of experiments %s: %s", ", ".join(records), error)
            failed |= {name: self._deferred(name, error) for name in records}
        except Exception:
            logger.exception("the lines of experiments %s", ", ".join(records))
            if len(records) == 1:
                failed |= {name: self._deferred(name) for name in records}
            else:
                # A mistake in one of them is none of the others'.
                for name in records:
                    failed |= self._fold_together((name,))
        # None where they were not written.
        for name, entry in zip(records, entries, strict=bool(entries)):
            self._ended(name, entry)
        if names:
            self._ledger.changed()
        return failed

    def _ended(self, experiment_id: str, entry: Entry) -> None:
        self._unfolded.discard(experiment_id)
        self._leases.forget(experiment_id)
        for table in (self.running, self.lost, self._lost_since):
            table.pop(experiment_id, None)
        self._kept[experiment_id] = (time.monotonic(), entry)

    def _deferred(self, experiment_id: str, error: RetryError | None = None) -> RetryError:
        """Put off what could not be written; the error of its finish."""
        self._unfolded.add(experiment_id)
        self._leases.forget(experiment_id)
        self._next_try = time.monotonic() + _HOUSEKEEPING_S
        return error or StoreUnavailableError(
            f"experiment {experiment_id} could not be written: see the collector's log"
        )

    def wait_s(self) -> float | None:
        """Seconds until there may be something to do; None: nothing before more events come."""
        if self._unfolded or self._kept:
            return _HOUSEKEEPING_S
        lease = self._leases.wait_s()
        if self._lost_since:
            oldest = min(self._lost_since.values())
            until_removed = max(_HOUSEKEEPING_S, oldest + _KEEP_LOST_S - time.monotonic())
            return until_removed if lease is None else min(lease, until_removed)
        return lease

    def housekeep(self, *, stopping: bool) -> None:
        """Try again what could not be written, give up who is silent, remove events that are needed no more."""
        now = time.monotonic()
        if self._unfolded and (now >= self._next_try or stopping):
            for experiment_id in list(self._unfolded):
                self.fold((experiment_id,))
        if not stopping:
            for experiment_id in self._leases.overdue():
                self._give_up(experiment_id)
        over = [name for name, (since, entry) in self._kept.items() if stopping or self._is_read(now - since, entry)]
        stale = [name for name, since in self._lost_since.items() if now > since + _KEEP_LOST_S]
        if not over and not stale:
            return
        try:
            self._inflight.remove([*over, *stale])
        except RetryError as error:
            # They are removed with the next ones, or at the next start.
            logger.warning("%s", error)
            return
        for name in over:
            del self._kept[name]
        for name in stale:
            del self.lost[name], self._lost_since[name]

    def _record(self, experiment_id: str) -> Record:
        record = self._codec.fold_record(experiment_id, self._inflight.read_all(experiment_id))
        if record.get(EVENTS_KEY) != self.state(experiment_id).committed:
            raise StoreUnavailableError(f"events of experiment {experiment_id} are missing: restart the collector")
        return record

    def _give_up(self, experiment_id: str) -> None:
        """Give a line to one that was not heard of for a whole lease: LOST, and whatever it had sent."""
        lease_s = self._leases.lease_s
        try:
            record = self._record(experiment_id)
            record["error"] = f"not heard of for {lease_s:g} s: its process, its machine or the network is gone"
            record[UNFINISHED_KEY] = True
            (entry,) = self._ledger.append((record,))
        except Exception as error:  # As in `fold`.
            if isinstance(error, RetryError):
                logger.error("the line of experiment %s: %s", experiment_id, error)
            else:
                logger.exception("the line of experiment %s", experiment_id)
            self._leases.put_off(experiment_id, _HOUSEKEEPING_S)
            return
        logger.warning("experiment %s is LOST, with number %d: %s", experiment_id, entry.number, record["error"])
        self._observer.lost()
        self._leases.forget(experiment_id)
        self.lost[experiment_id] = self.running.pop(experiment_id)
        self._lost_since[experiment_id] = time.monotonic()
        self._ledger.changed()

    def _is_read(self, age_s: float, entry: Entry) -> bool:
        if age_s > _KEEP_FOR_WATCHERS_S:
            return True
        behind = self._ledger.watchers_behind(entry.experiment_id, entry.number, entry.events or 0)
        return age_s > _KEEP_S and not behind


__all__ = ["Endings"]
