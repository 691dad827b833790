"""One experiment's events over one connection: where the collector stands, and then what it lacks, in order.

On each connection the collector is asked how far it has come (GetAppendStatus), and sending goes on from there, so
nothing is twice and nothing is missing, whichever side was restarted.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from quantizer.errors import CollectorAwayError, ExperimentDelayedError, OffsetGapError
from quantizer.rpc import AppendStatus, Batch
from quantizer.spool import HeldExperiment, Spool
from quantizer.wire_batches import DamagedEventError, batches_of, last_words

HEARTBEAT_S = 30.0
BURST_EVENTS = 2048


class Session(Protocol):
    """One connection, as `quantizer.rpc.CollectorSession`."""

    def status(self, experiment_id: str) -> AppendStatus:
        """How much of an experiment the collector has."""

    def append(self, experiment_id: str, batches: Sequence[Batch]) -> Iterator[tuple[int, int | None]]:
        """Send batches; yields what is acknowledged."""

    def answers(self, timeout_s: float) -> bool:
        """Whether there is anybody at the other end."""

    def close(self) -> None:
        """End the connection, and any call that waits on it."""


class Transfer:
    """What one sender knows of its connection. For one thread."""

    def __init__(
        self, spool: Spool, *, on_progress: Callable[[], None], on_delivered: Callable[[str, int | None], None]
    ) -> None:
        """Args:
        spool: holds the events.
        on_progress: called whenever the collector has answered.
        on_delivered: called with an experiment that it has all of, and the number of its line.
        """
        self._spool = spool
        self._on_progress = on_progress
        self._on_delivered = on_delivered
        # When each experiment that is in step with the collector is to be heard of next.
        self._heartbeats: dict[str, float] = {}

    def heartbeat_at(self, now: float) -> float:
        """When the next heartbeat is due."""
        return min(self._heartbeats.values(), default=now + HEARTBEAT_S)

    def disconnected(self) -> None:
        """The next call is on another connection: nothing is in step."""
        self._heartbeats.clear()

    def forget(self, experiment_id: str) -> None:
        """No more heartbeats for an experiment."""
        self._heartbeats.pop(experiment_id, None)

    def deliver(self, session: Session, held: HeldExperiment) -> None:
        """Send what there is of an experiment.

        Raises:
            DeliveryError: one of its kinds.
        """
        experiment_id = held.row.id
        for _ in range(3):  # Gaps mend themselves by asking again; not for ever.
            try:
                if experiment_id not in self._heartbeats and self._get_in_step(session, held):
                    return
                self._send_pending(session, experiment_id)
                return
            except OffsetGapError as error:
                self.forget(experiment_id)
                gap = error
        raise ExperimentDelayedError(f"its offsets do not settle: {gap}")

    def _heard(self, experiment_id: str) -> None:
        self._heartbeats[experiment_id] = time.monotonic() + HEARTBEAT_S

    def _get_in_step(self, session: Session, held: HeldExperiment) -> bool:
        """Ask how far the collector has come; True: it has everything, and the experiment is gone from here."""
        experiment_id = held.row.id
        status = session.status(experiment_id)
        self._on_progress()
        if status.finished and status.committed_offset >= held.row.next_offset and (held.row.ended or held.orphan):
            self._delivered(experiment_id, status.number)
            return True
        self._spool.pad(experiment_id, status.committed_offset)
        self._spool.acknowledge(experiment_id, status.committed_offset)
        if held.orphan and not held.row.ended:
            self._spool.append([(experiment_id, *last_words(held.row.touched - held.row.created))])
        self._heard(experiment_id)
        return False

    def _send_pending(self, session: Session, experiment_id: str) -> None:
        while events := self._spool.events(experiment_id, BURST_EVENTS):
            try:
                batches = batches_of(events, self._spool.lost(experiment_id))
            except DamagedEventError as error:
                self._spool.replace(experiment_id, error.offset, error.replacement)
                continue
            after, line = events[0].offset, None
            for committed, number in session.append(experiment_id, batches):
                after, line = max(after, committed), number if number is not None else line
                self._spool.acknowledge(experiment_id, committed)
                self._on_progress()
            if line is not None:
                self._delivered(experiment_id, line)
                return
            if after <= events[0].offset:
                raise CollectorAwayError("it acknowledges nothing")
            self._heard(experiment_id)
        row = next((held.row for held in self._spool.held() if held.row.id == experiment_id), None)
        if row is None:
            return
        if row.done:
            status = session.status(experiment_id)
            if not status.finished:
                raise ExperimentDelayedError("it has every event of an experiment and no record of it")
            self._delivered(experiment_id, status.number)
        elif time.monotonic() >= self._heartbeats[experiment_id]:
            for _ in session.append(experiment_id, [Batch(row.next_offset, ())]):
                self._on_progress()
            self._heard(experiment_id)

    def _delivered(self, experiment_id: str, number: int | None) -> None:
        self._spool.remove(experiment_id)
        self.forget(experiment_id)
        self._on_delivered(experiment_id, number)
        self._on_progress()


__all__ = ["Session", "Transfer"]
