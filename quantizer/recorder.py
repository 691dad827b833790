"""The record of an experiment: from the events of a run to the spool, without ever holding the run up.

`Recording.record` puts an event in a queue and returns; a writer thread turns it into bytes and writes it to the spool;
the publisher's threads send it. Nothing that goes wrong here reaches the experiment: the user gets one warning.
"""

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qlog.v1.credentials import Credentials

from quantizer.endpoints import LOCAL_TARGET, Endpoint, FixedEndpoint
from quantizer.events import Began, ExperimentEvent, Finished, LayerMeasured, Progressed
from quantizer.publisher import Publisher
from quantizer.spool import Spool
from quantizer.spool_tables import SpooledExperiment
from quantizer.wire import spool_entry

QUEUE_EVENTS = 100_000
EVENT_BYTES = 2**20 - 1024  # The collector takes no larger ones.
FLUSH_S = 5.0
CLOSE_S = 9.0  # With what it takes to stop, and to close the local store, 10.
PROGRESS_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where a finished experiment's record is.

    Attributes:
        delivered: the collector has all of it.
        number: of its line, where the collector has told it.
        lost: neither the collector nor the disk could take all of it.
        collector, spool: their names.
    """

    experiment_id: str
    delivered: bool
    number: int | None
    lost: bool
    collector: str
    spool: str


@dataclass(frozen=True, slots=True)
class _Item:
    recording: "Recording"
    event: ExperimentEvent
    stored: threading.Event | None


class Recording:
    """One experiment's record while it runs. Its methods never raise."""

    def __init__(self, recorder: "Recorder", experiment_id: str) -> None:
        self.experiment_id = experiment_id
        self.dropped: Counter[str] = Counter()
        self._recorder = recorder
        self._phase = ""
        self._phase_seen = 0.0

    def record(self, event: ExperimentEvent) -> None:
        """Take an event; returns in microseconds, but for Began and Finished, which are on disk first."""
        if isinstance(event, Progressed) and self._too_soon(event):
            return
        self._recorder._take(self, event)

    def _too_soon(self, event: Progressed) -> bool:
        """Progress is for watching: two a second are enough, and the first and last of each phase."""
        report = event.report
        now = time.monotonic()
        if report.phase == self._phase and report.done < report.total and now < self._phase_seen + PROGRESS_EVERY_S:
            return True
        self._phase, self._phase_seen = report.phase, now
        return False


class Recorder:
    """Writer and senders of one process; a context manager."""

    def __init__(
        self,
        log_dir: Path,
        *,
        collector: str | None,
        open_local: Callable[[], Endpoint],
        warn: Callable[[str], None],
        credentials: Credentials | None = None,
    ) -> None:
        """Open the spool in `log_dir`.

        Args:
            log_dir: holds the spool, and the local store.
            collector: HOST:PORT; None: the local store.
            open_local: makes the endpoint of the local store in `log_dir`.
            warn: shows one line to the user.
            credentials: to connect to `collector` with.

        Raises:
            SpoolError: `log_dir` cannot be written.
        """
        self._warn = warn
        self._lost: set[str] = set()
        self._spool = Spool(log_dir / "spool", on_trouble=warn)
        self._target = collector or LOCAL_TARGET
        self._endpoint: Endpoint = FixedEndpoint(collector, credentials) if collector else open_local()
        self._publisher = Publisher(
            self._spool,
            target=self._target,
            endpoint=self._endpoint,
            open_local=open_local,
            on_trouble=self._sending_fails,
        )
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="qlog-writer", daemon=True)
        self._writer.start()
        self._publisher.start()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sending_fails(self, reason: str) -> None:
        self._warn(
            f"{self._endpoint.name} cannot be reached ({reason}): experiments go on, their records are kept in "
            f"{self._spool.directory} and sent when it is back"
        )

    def recording(self, experiment_id: str) -> Recording:
        """For a new experiment, whose first event is Began and whose last is Finished."""
        return Recording(self, experiment_id)

    def _take(self, recording: Recording, event: ExperimentEvent) -> None:
        if isinstance(event, LayerMeasured | Progressed) and self._queue.qsize() >= QUEUE_EVENTS:
            recording.dropped["layer_stats" if isinstance(event, LayerMeasured) else "progress"] += 1
            return
        stored = threading.Event() if isinstance(event, Began | Finished) else None
        self._queue.put(_Item(recording, event, stored))
        if stored is not None:
            stored.wait(FLUSH_S)

    # --- the writer thread -------------------------------------------------------------------------------------------

    def _write(self) -> None:
        while (item := self._queue.get()) is not None:
            items = [item]
            last = False
            while len(items) < 512 and not self._queue.empty():
                more = self._queue.get()
                if more is None:
                    last = True
                    break
                items.append(more)
            try:
                self._store(items)
            except Exception as error:  # noqa: BLE001 - recording never harms an experiment
                self._warn(f"events of the experiment cannot be recorded ({type(error).__name__}: {error})")
            for done in items:
                if done.stored is not None:
                    done.stored.set()
            if last:
                return

    def _store(self, items: list[_Item]) -> None:
        entries: list[tuple[str, str, bytes]] = []
        for item in items:
            entry = self._entry(item)
            if entry is None:
                continue
            if isinstance(item.event, Began):
                self._spool.begin(item.recording.experiment_id, self._target, *entry)
            else:
                entries.append((item.recording.experiment_id, *entry))
        if entries:
            self._spool.append(entries)
        self._publisher.notify(len(items), urgent=any(item.stored is not None for item in items))

    def _entry(self, item: _Item) -> tuple[str, bytes] | None:
        try:
            kind, payload = spool_entry(item.event, item.recording.dropped)
        except (TypeError, ValueError) as error:
            self._warn(f"an event of the experiment cannot be recorded ({error})")
            item.recording.dropped[type(item.event).__name__] += 1
            return None
        if len(payload) > EVENT_BYTES:
            self._warn(f"an event of the experiment is too large to be recorded ({len(payload)} bytes)")
            item.recording.dropped[kind] += 1
            return None
        return kind, payload

    # --- the end -----------------------------------------------------------------------------------------------------

    def wait_delivered(self, experiment_id: str, timeout_s: float) -> Delivery:
        """Wait until a finished experiment's record is delivered, not long where the collector is away."""
        self._publisher.wait_delivered(experiment_id, timeout_s)
        return self.delivery(experiment_id)

    def spooled(self) -> list[SpooledExperiment]:
        """What is in the spool, of all processes."""
        return self._spool.experiments()

    def delivery(self, experiment_id: str) -> Delivery:
        """Where an experiment's record is now."""
        delivered, number = self._publisher.delivered(experiment_id)
        lost = experiment_id in self._lost
        return Delivery(experiment_id, delivered, number, lost, self._endpoint.name, str(self._spool.directory))

    def close(self) -> None:
        """Send what can be sent within bounds, leave the rest in the spool."""
        until = time.monotonic() + CLOSE_S
        self._queue.put(None)
        self._writer.join(FLUSH_S)
        try:
            self._publisher.close(until)
            self._lost.update(self._spool.close())
        except Exception as error:  # noqa: BLE001 - recording never harms an experiment
            self._warn(f"the record could not be closed ({type(error).__name__}: {error})")


__all__ = ["Delivery", "Recorder", "Recording"]
