"""The background sender: takes events from the spool to one collector, in order, and never makes anyone wait.

An experiment's events go out at the offsets they have in the spool. On each connection the collector is asked how far
it has come (GetAppendStatus), and sending goes on from there, so nothing is twice and nothing is missing, whichever
side was restarted. An experiment leaves the spool when it has finished and all of it is acknowledged.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from quantizer.endpoints import Endpoint
from quantizer.errors import CollectorAwayError, DeliveryError, ExperimentRefusedError, OffsetGapError
from quantizer.pacing import Pacing
from quantizer.rpc import AppendStatus, Batch
from quantizer.spool import HeldExperiment, Spool
from quantizer.wire import batches_of, last_words

HEARTBEAT_S = 30.0
BURST_EVENTS = 2048


class Session(Protocol):
    """One connection, as `quantizer.rpc.CollectorSession`."""

    def status(self, experiment_id: str) -> AppendStatus:
        """How much of an experiment the collector has."""

    def append(self, experiment_id: str, batches: Sequence[Batch]) -> Iterator[tuple[int, int | None]]:
        """Send batches; yields what is acknowledged."""

    def close(self) -> None:
        """End the connection, and any call that waits on it."""


class Sender:
    """One thread that sends the experiments of one target. `target` None: whatever this process holds."""

    def __init__(
        self,
        spool: Spool,
        endpoint: Endpoint,
        *,
        target: str | None,
        connect: Callable[[str], Session],
        on_trouble: Callable[[str], None],
        on_delivered: Callable[[str, int | None], None],
    ) -> None:
        self.endpoint = endpoint
        self._spool = spool
        self._target = target
        self._connect = connect
        self._on_trouble = on_trouble
        self._on_delivered = on_delivered
        self._wake = threading.Condition()
        self._pacing = Pacing()
        self._stop = False
        self._reached = False
        self._last_progress = time.monotonic()
        self._session: Session | None = None
        # When each experiment that is in step with the collector is to be heard of next.
        self._heartbeats: dict[str, float] = {}
        self._refused: dict[str, str] = {}
        self._reason = ""
        self._thread = threading.Thread(target=self._run, name="qlog-sender", daemon=True)

    # --- for other threads -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def notify(self, count: int, *, urgent: bool = False) -> None:
        """There are `count` more events in the spool."""
        with self._wake:
            self._pacing.add(count, time.monotonic(), urgent=urgent)
            self._wake.notify_all()

    def pending(self) -> list[HeldExperiment]:
        """What this sender could still deliver: events without acknowledgement, or an orphan without an end."""
        return [
            held
            for held in self._mine()
            if held.row.id not in self._refused and (held.row.pending or held.row.ended or held.orphan)
        ]

    @property
    def refused(self) -> dict[str, str]:
        """The experiments that the collector does not take, with its reason."""
        with self._wake:
            return dict(self._refused)

    @property
    def reason(self) -> str:
        """Why the last attempt failed; empty: it did not."""
        with self._wake:
            return self._reason

    def drain(self, *, total_s: float, away_s: float, keep_trying: int = 3) -> bool:
        """Wait until all is delivered, as long as that goes on.

        Args:
            total_s: never longer.
            away_s: without progress, where the collector has not been reached.
            keep_trying: attempts that may fail; one more where the endpoint may move.

        Returns:
            Whether nothing is left.
        """
        attempts = keep_trying + (1 if self.endpoint.may_move else 0)
        began = time.monotonic()
        with self._wake:
            self._pacing.hurry()
            self._last_progress = began
            self._wake.notify_all()
            while self._thread.is_alive() and self.pending():
                now = time.monotonic()
                if now >= began + total_s or self._pacing.failures >= attempts:
                    return False
                if not self._reached and now >= self._last_progress + away_s:
                    return False
                self._wake.wait(0.02)
        return not self.pending()

    def close(self) -> None:
        """Stop, whatever is left."""
        with self._wake:
            self._stop = True
            self._wake.notify_all()
            session = self._session
        if session is not None:
            session.close()
        self._thread.join(1.0)
        self.endpoint.close()

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._wait():
            try:
                self._deliver_all()
                self._succeeded()
            except DeliveryError as error:
                self._failed(str(error))
            except Exception as error:  # noqa: BLE001 - recording never harms an experiment
                self._failed(f"{type(error).__name__}: {error}")
        self._drop_session()

    def _wait(self) -> bool:
        """Until there is something to do; False: stop."""
        with self._wake:
            while not self._stop:
                now = time.monotonic()
                wait_s = self._pacing.wait_s(now, min(self._heartbeats.values(), default=now + HEARTBEAT_S))
                if wait_s == 0.0:
                    self._pacing.begin()
                    return True
                self._wake.wait(wait_s)
            return False

    def _succeeded(self) -> None:
        with self._wake:
            self._pacing.succeed()
            self._reason = ""
            self._wake.notify_all()

    def _failed(self, reason: str) -> None:
        self._drop_session()
        self.endpoint.failed()
        with self._wake:
            if self._stop:
                return
            self._reached = False
            self._reason = reason
            self._pacing.fail(time.monotonic(), at_once=self.endpoint.may_move)
            failures = self._pacing.failures
            self._wake.notify_all()
        if failures > 1:  # The first may be a restart that is over in a moment.
            self._on_trouble(reason)

    def _drop_session(self) -> None:
        with self._wake:
            session, self._session = self._session, None
            self._heartbeats.clear()
        if session is not None:
            session.close()

    def _progressed(self) -> None:
        with self._wake:
            self._reached = True
            self._last_progress = time.monotonic()
            self._wake.notify_all()

    def _mine(self) -> list[HeldExperiment]:
        return [held for held in self._spool.held() if self._target is None or held.row.target == self._target]

    def _deliver_all(self) -> None:
        for held in self._mine():
            if held.row.id not in self._refused:
                with self._setting_aside_if_refused(held):
                    self._deliver(self._connected(), held)

    def _connected(self) -> Session:
        if self._session is None:
            session = self._connect(self.endpoint.resolve())
            with self._wake:
                self._session = session
                if self._stop:
                    raise CollectorAwayError("stopped")
        return self._session

    @contextmanager
    def _setting_aside_if_refused(self, held: HeldExperiment) -> Iterator[None]:
        try:
            yield
        except ExperimentRefusedError as error:
            with self._wake:
                self._refused[held.row.id] = str(error)
                self._heartbeats.pop(held.row.id, None)
                self._wake.notify_all()
            if not held.orphan:
                self._on_trouble(f"it refuses the experiment's events: {error}")

    def _deliver(self, session: Session, held: HeldExperiment) -> None:
        experiment_id = held.row.id
        for _ in range(3):  # Gaps mend themselves by asking again; not for ever.
            try:
                if experiment_id not in self._heartbeats and self._get_in_step(session, held):
                    return
                self._send_pending(session, experiment_id)
                return
            except OffsetGapError as error:
                self._heartbeats.pop(experiment_id, None)
                gap = error
        raise CollectorAwayError(f"its offsets do not settle: {gap}")

    def _get_in_step(self, session: Session, held: HeldExperiment) -> bool:
        """Ask how far the collector has come; True: it has everything, and the experiment is gone from here."""
        experiment_id = held.row.id
        status = session.status(experiment_id)
        self._progressed()
        if status.finished and status.committed_offset >= held.row.next_offset and (held.row.ended or held.orphan):
            self._delivered(experiment_id, status.number)
            return True
        self._spool.pad(experiment_id, status.committed_offset)
        self._spool.acknowledge(experiment_id, status.committed_offset)
        if held.orphan and not held.row.ended:
            self._spool.append([(experiment_id, *last_words(held.row.touched - held.row.created))])
        self._heartbeats[experiment_id] = time.monotonic() + HEARTBEAT_S
        return False

    def _send_pending(self, session: Session, experiment_id: str) -> None:
        while events := self._spool.events(experiment_id, BURST_EVENTS):
            before, after, line = events[0].offset, events[0].offset, None
            for committed, number in session.append(experiment_id, batches_of(events, self._spool.lost(experiment_id))):
                after, line = max(after, committed), number if number is not None else line
                self._spool.acknowledge(experiment_id, committed)
                self._progressed()
            if line is not None:
                self._delivered(experiment_id, line)
                return
            if after <= before:
                raise CollectorAwayError("it acknowledges nothing")
            self._heartbeats[experiment_id] = time.monotonic() + HEARTBEAT_S
        row = next((held.row for held in self._spool.held() if held.row.id == experiment_id), None)
        if row is None:
            return
        if row.done:
            status = session.status(experiment_id)
            if not status.finished:
                raise CollectorAwayError("it has every event of an experiment and no record of it")
            self._delivered(experiment_id, status.number)
        elif time.monotonic() >= self._heartbeats[experiment_id]:
            for _ in session.append(experiment_id, [Batch(row.next_offset, ())]):
                self._progressed()
            self._heartbeats[experiment_id] = time.monotonic() + HEARTBEAT_S

    def _delivered(self, experiment_id: str, number: int | None) -> None:
        self._spool.remove(experiment_id)
        with self._wake:
            self._heartbeats.pop(experiment_id, None)
        self._on_delivered(experiment_id, number)
        self._progressed()


__all__ = ["Sender", "Session"]
