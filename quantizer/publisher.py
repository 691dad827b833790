"""Who sends what where: one sender for the collector of this process, one for each other that left events wait for."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from quantizer.endpoints import Endpoint, endpoint_of
from quantizer.rpc import CollectorSession
from quantizer.sender import Sender
from quantizer.spool import Spool

ADOPTION_S = 60.0
# How long the end waits for a collector that is not there.
DRAIN_AWAY_S = 1.2
STOP_S = 0.5


class Publisher:
    """The senders of one process. Events of processes that are gone are taken over, and sent where they were meant."""

    def __init__(
        self,
        spool: Spool,
        *,
        target: str,
        endpoint: Endpoint,
        open_local: Callable[[], Endpoint],
        on_trouble: Callable[[str], None],
    ) -> None:
        self._spool = spool
        self._open_local = open_local
        self._numbers: dict[str, int | None] = {}
        self._delivered = threading.Condition()
        self._stop = threading.Event()
        self._own = self._sender(target, endpoint, on_trouble)
        self._others: dict[str, Sender] = {}
        self._target = target
        self._on_trouble = on_trouble
        # Of the token: it was given for one collector, and is nobody else's to see.
        self._credentials_of_others = replace(endpoint.credentials, token_file=None)
        self._adopter = threading.Thread(target=self._adopt_regularly, name="qlog-adopter", daemon=True)

    def _sender(self, target: str, endpoint: Endpoint, on_trouble: Callable[[str], None]) -> Sender:
        return Sender(
            self._spool,
            endpoint,
            target=target,
            connect=partial(CollectorSession, credentials=endpoint.credentials),
            on_trouble=on_trouble,
            on_delivered=self._note_delivery,
        )

    def _note_delivery(self, experiment_id: str, number: int | None) -> None:
        with self._delivered:
            self._numbers[experiment_id] = number
            self._delivered.notify_all()

    def _adopt(self) -> None:
        for row in self._spool.adopt():
            if row.target == self._target:
                self._own.notify(0, urgent=True)
                continue
            if row.target not in self._others:
                # Nobody asked about this collector now: its absence is no news for the user.
                sender = self._sender(
                    row.target, endpoint_of(row.target, self._open_local, self._credentials_of_others), _say_nothing
                )
                self._others[row.target] = sender
                sender.start()
            self._others[row.target].notify(0, urgent=True)

    def _adopt_regularly(self) -> None:
        while not self._stop.wait(ADOPTION_S):
            try:
                self._adopt()
            except Exception as error:  # noqa: BLE001 - recording never harms an experiment
                self._on_trouble(f"{type(error).__name__}: {error}")

    def start(self) -> None:
        """Begin to send, what others have left too."""
        self._own.start()
        self._adopt()
        self._adopter.start()

    def notify(self, count: int, *, urgent: bool = False) -> None:
        """There are `count` more events in the spool."""
        self._own.notify(count, urgent=urgent)

    def wait_delivered(self, experiment_id: str, timeout_s: float) -> None:
        """Wait until the collector has all of a finished experiment, or is found to be away."""
        until = time.monotonic() + timeout_s
        with self._delivered:
            while experiment_id not in self._numbers and time.monotonic() < until:
                if self._own.reason or experiment_id in self._own.refused:
                    return
                self._delivered.wait(0.02)

    def delivered(self, experiment_id: str) -> tuple[bool, int | None]:
        """Whether the collector has all of an experiment, and the number of its line, if it has told it."""
        with self._delivered:
            return experiment_id in self._numbers, self._numbers.get(experiment_id)

    def close(self, until: float) -> None:
        """Wait, within bounds, until what can be sent is sent; stop.

        Args:
            until: never longer (time.monotonic), but for a moment that it takes to stop.
        """
        began = time.monotonic()
        self._stop.set()
        self._adopter.join(max(0.0, until - began))
        if not self._own.drain(until=until, away_s=DRAIN_AWAY_S) and self._own.pending():
            self._on_trouble(self._own.reason or "no answer in time")
        for sender in self._others.values():
            if not sender.reason:
                sender.drain(until=min(until, began + DRAIN_AWAY_S), away_s=DRAIN_AWAY_S, keep_trying=1)
        senders = (self._own, *self._others.values())
        for sender in senders:
            sender.stop()
        stopped = time.monotonic() + STOP_S
        for sender in senders:
            sender.close(stopped - time.monotonic())


def _say_nothing(_reason: str) -> None:
    """For collectors that this process was not told to use."""


__all__ = ["Publisher"]
