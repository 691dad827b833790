"""The background sender: takes events from the spool to one collector, in order, and never makes anyone wait.

An experiment's events go out at the offsets they have in the spool (`quantizer.transfer`). It leaves the spool when it
has finished and all of it is acknowledged.
"""

import threading
import time
from collections.abc import Callable

from quantizer.endpoints import Endpoint
from quantizer.errors import CollectorAwayError, DeliveryError, ExperimentDelayedError, ExperimentRefusedError
from quantizer.pacing import Pacing
from quantizer.spool import HeldExperiment, Spool
from quantizer.transfer import Session, Transfer

# How long a collector that has answered before may be silent until it is asked whether it lives, and its time for that.
SILENCE_S = 0.6
PROBE_S = 0.6


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
        self._transfer = Transfer(spool, on_progress=self._progressed, on_delivered=on_delivered)
        self._wake = threading.Condition()
        self._pacing = Pacing()
        self._stop = False
        self._reached = False
        self._last_progress = time.monotonic()
        self._session: Session | None = None
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

    def drain(self, *, until: float, away_s: float, keep_trying: int = 3) -> bool:
        """Wait until all is delivered, as long as that goes on.

        Args:
            until: never longer (time.monotonic).
            away_s: without progress, where the collector has not been reached. One that has been, and is silent for a
                moment, is asked whether it lives: a slow one is waited for. So is the local store, which this process
                serves, or another that it has looked for.
            keep_trying: attempts that may fail; one more where the endpoint may move.

        Returns:
            Whether nothing is left.
        """
        attempts = keep_trying + (1 if self.endpoint.may_move else 0)
        with self._wake:
            self._pacing.hurry()
            self._last_progress = time.monotonic()
            self._wake.notify_all()
        while self._thread.is_alive() and self.pending():
            now = time.monotonic()
            with self._wake:
                silent_s = now - self._last_progress
                session = self._session if self._reached else None
                if now >= until or self._pacing.failures >= attempts:
                    return False
                if session is None and silent_s >= away_s and not self.endpoint.may_move:
                    return False
                if session is None or silent_s < SILENCE_S or self.endpoint.may_move:
                    self._wake.wait(0.02)
                    continue
            if not session.answers(min(PROBE_S, max(0.01, until - now))):
                return False
            with self._wake:
                self._last_progress = time.monotonic()
        return not self.pending()

    def stop(self) -> None:
        """Stop soon, whatever is left."""
        with self._wake:
            self._stop = True
            self._wake.notify_all()
            session = self._session
        if session is not None:
            session.close()

    def close(self, timeout_s: float = 1.0) -> None:
        """Stop, and wait for it."""
        self.stop()
        self._thread.join(max(0.0, timeout_s))
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
                wait_s = self._pacing.wait_s(now, self._transfer.heartbeat_at(now))
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
            self._transfer.disconnected()
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
        delayed: ExperimentDelayedError | None = None
        for held in self._mine():
            if held.row.id in self._refused:
                continue
            try:
                self._transfer.deliver(self._connected(), held)
            except ExperimentDelayedError as error:
                delayed = error  # The others need not wait for it.
            except ExperimentRefusedError as error:
                self._set_aside(held, str(error))
        if delayed is not None:
            raise delayed

    def _connected(self) -> Session:
        if self._session is None:
            session = self._connect(self.endpoint.resolve())
            with self._wake:
                self._session = session
                if self._stop:
                    raise CollectorAwayError("stopped")
        return self._session

    def _set_aside(self, held: HeldExperiment, reason: str) -> None:
        with self._wake:
            self._refused[held.row.id] = reason
            self._transfer.forget(held.row.id)
            self._wake.notify_all()
        if not held.orphan:
            self._on_trouble(f"it refuses the experiment's events: {reason}")


__all__ = ["Sender"]
