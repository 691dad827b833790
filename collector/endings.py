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

    def fold(self, experiment_id: str) -> RetryError | None:
        """Give a finished experiment its line, or complete the one it has; the error where that cannot be done now."""
        try:
            record = self._record(experiment_id)
            entry = self._ledger.find(experiment_id)
            if entry is None:
                entry = self._ledger.append(record)
            elif is_unfinished(entry):
                entry = self._ledger.amend(entry, record)
        except RetryError as error:
            logger.error("the line of experiment %s: %s", experiment_id, error)
            self._defer(experiment_id)
            return error
        except Exception:  # The one writer must outlive any mistake in it; the events stay on disk.
            logger.exception("the line of experiment %s", experiment_id)
            self._defer(experiment_id)
            return StoreUnavailableError(f"experiment {experiment_id} could not be written: see the collector's log")
        self._unfolded.discard(experiment_id)
        self._leases.forget(experiment_id)
        for table in (self.running, self.lost, self._lost_since):
            table.pop(experiment_id, None)
        self._kept[experiment_id] = (time.monotonic(), entry)
        self._ledger.changed()
        return None

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
                self.fold(experiment_id)
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
            entry = self._ledger.append(record)
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

    def _defer(self, experiment_id: str) -> None:
        self._unfolded.add(experiment_id)
        self._leases.forget(experiment_id)
        self._next_try = time.monotonic() + _HOUSEKEEPING_S

    def _is_read(self, age_s: float, entry: Entry) -> bool:
        if age_s > _KEEP_FOR_WATCHERS_S:
            return True
        behind = self._ledger.watchers_behind(entry.experiment_id, entry.number, entry.events or 0)
        return age_s > _KEEP_S and not behind


__all__ = ["Endings"]
