"""Every event of every experiment of this host, on local disk until the collector has it all.

Several processes share one spool: each sends the experiments it holds a lock for, which are its own and those whose
process is gone. When the disk cannot take more, or not be read, the process keeps its own experiments in memory and
says so once. What the collector has acknowledged is no longer sent; it stays until all of the experiment is, in case
that the collector loses its disk in between, and is what goes first where space is needed.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from quantizer.errors import SpoolError
from quantizer.locks import ExperimentLock
from quantizer.spool_files import file_of, open_tables
from quantizer.spool_tables import SpooledEvent, SpooledExperiment, SpoolTables

DEFAULT_CAP_BYTES = 256 * 2**20
MEMORY_CAP_BYTES = 64 * 2**20
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HeldExperiment:
    """An experiment that this process sends. `orphan`: another process began it and is gone."""

    row: SpooledExperiment
    orphan: bool


@dataclass
class _Held:
    """What is known of an experiment without the disk.

    Attributes:
        lock: None where not even that could be made.
        begin, finish: events that a record cannot do without; of orphans they are on the disk alone.
    """

    lock: ExperimentLock | None
    row: SpooledExperiment
    orphan: bool = False
    begin: tuple[str, bytes] | None = None
    finish: tuple[str, bytes] | None = None

    def appended(self, kind: str, payload: bytes) -> None:
        """One more event."""
        self.row = replace(self.row, next_offset=self.row.next_offset + 1)
        if self.begin is None and not self.orphan:
            self.begin = kind, payload
        if kind == "finish":
            self.finish = kind, payload


class Spool:
    """A directory with `spool.sqlite` and the experiments' locks. Safe for threads."""

    def __init__(
        self,
        directory: Path,
        *,
        on_trouble: Callable[[str], None],
        cap_bytes: int = DEFAULT_CAP_BYTES,
    ) -> None:
        """Open or make it.

        Raises:
            SpoolError: the directory cannot be written, or a newer version wrote the file. A full disk is no error:
                the spool is in memory then.
        """
        self.directory = directory
        self._on_trouble = on_trouble
        self._cap_bytes = cap_bytes
        self._lock = threading.RLock()
        self._held: dict[str, _Held] = {}
        self._disk: SpoolTables | None = None
        self._memory: SpoolTables | None = None
        try:
            self._disk = open_tables(directory, on_trouble)
        except (sqlite3.Error, OSError) as error:
            self._to_memory(error)
        self._file = file_of(directory)

    def _to_memory(self, error: Exception) -> None:
        """Go on in memory, with the experiments of this process as they stand on disk, or what is known of them."""
        self._memory = memory = SpoolTables(sqlite3.connect(":memory:", check_same_thread=False))
        for experiment_id, held in self._held.items():
            try:
                if self._disk is not None:
                    memory.adopt_from(self._disk, experiment_id)
            except sqlite3.Error:
                if held.begin is not None:
                    memory.restore(held.row, held.begin, held.finish)
        self._on_trouble(
            f"the spool in {self.directory} cannot be used ({error}): the experiment goes on, its events are kept "
            "in memory until they are sent"
        )

    @property
    def in_memory(self) -> bool:
        """Whether the disk could not take what there was to write."""
        return self._memory is not None

    @property
    def _tables(self) -> SpoolTables:
        tables = self._memory or self._disk
        assert tables is not None, "one of the two is set by the constructor"  # noqa: S101
        return tables

    def _do(self, operation: Callable[[SpoolTables], T]) -> T:
        try:
            return operation(self._tables)
        except (sqlite3.Error, OSError) as error:
            # ProgrammingError: it was closed, and a thread that was given up on has not noticed yet.
            if self._memory is not None or isinstance(error, sqlite3.ProgrammingError):
                raise
            self._to_memory(error)
            return operation(self._tables)

    # --- the experiment's side ---------------------------------------------------------------------------------------

    def begin(self, experiment_id: str, target: str, kind: str, payload: bytes) -> None:
        """A new experiment of this process, meant for `target`, with its first event."""
        with self._lock:
            now = time.time()
            lock = None
            try:
                lock = ExperimentLock.acquire(self.directory, experiment_id)
            except OSError as error:
                # Without its lock another process would take it for one whose process is gone.
                if self._memory is None:
                    self._to_memory(error)
            row = SpooledExperiment(experiment_id, target, now, now, 0, 0, False, 0)
            self._held[experiment_id] = _Held(lock, row)
            self._do(lambda tables: tables.add(experiment_id, target, now))
            self.append([(experiment_id, kind, payload)])

    def append(self, entries: Sequence[tuple[str, str, bytes]]) -> None:
        """Add events, (experiment id, kind, payload) each; over the cap, the least valuable ones are given up."""
        with self._lock:
            self._do(lambda tables: tables.append(entries, time.time()))
            for experiment_id, kind, payload in entries:
                if (held := self._held.get(experiment_id)) is not None:
                    held.appended(kind, payload)
            cap = MEMORY_CAP_BYTES if self.in_memory else self._cap_bytes
            excess = self._do(SpoolTables.total_bytes) - min(cap, self._cap_bytes)
            if excess > 0:
                slack = self._cap_bytes // 10  # Not again for every single event.
                self._do(lambda tables: tables.shed(excess + slack))

    # --- the sender's side -------------------------------------------------------------------------------------------

    def experiments(self) -> list[SpooledExperiment]:
        """All that are here, of all processes, the oldest first."""
        with self._lock:
            return self._do(SpoolTables.experiments)

    def held(self) -> list[HeldExperiment]:
        """Those that this process sends: its own first, then the others, each the oldest first."""
        with self._lock:
            rows = [row for row in self.experiments() if row.id in self._held]
            held = [HeldExperiment(row, orphan=self._held[row.id].orphan) for row in rows]
            return sorted(held, key=lambda experiment: experiment.orphan)

    def adopt(self) -> list[SpooledExperiment]:
        """Take over the experiments whose process is gone; the rows of those taken over now."""
        with self._lock:
            adopted = []
            for row in self.experiments():
                if row.id in self._held or self.in_memory:
                    continue
                try:
                    lock = ExperimentLock.acquire(self.directory, row.id)
                except (OSError, ValueError):
                    continue
                if lock is None:
                    continue
                if self._experiment(row.id) is None:  # Delivered while we looked.
                    lock.release(remove=True)
                    continue
                self._held[row.id] = _Held(lock, row, orphan=True)
                adopted.append(row)
            return adopted

    def _experiment(self, experiment_id: str) -> SpooledExperiment | None:
        return self._do(lambda tables: tables.experiment(experiment_id))

    def events(self, experiment_id: str, limit: int) -> list[SpooledEvent]:
        """The first events that the collector has not acknowledged."""
        with self._lock:
            row = self._experiment(experiment_id)
            return self._do(lambda tables: tables.events(experiment_id, row.acknowledged, limit)) if row else []

    def lost(self, experiment_id: str) -> dict[str, int]:
        """Events given up before the collector had them, by kind."""
        with self._lock:
            return self._do(lambda tables: tables.lost(experiment_id))

    def acknowledge(self, experiment_id: str, committed: int) -> None:
        """Note what the collector has (it may be less than before: it lost its disk)."""
        with self._lock:
            self._do(lambda tables: tables.acknowledge(experiment_id, committed))
            if (held := self._held.get(experiment_id)) is not None:
                held.row = replace(held.row, acknowledged=committed)

    def pad(self, experiment_id: str, upto: int) -> None:
        """Fill offsets that the collector has and this spool does not."""
        with self._lock:
            self._do(lambda tables: tables.pad(experiment_id, upto))

    def replace(self, experiment_id: str, offset: int, payload: bytes | None) -> None:
        """Put another payload in the place of one that is damaged; None: it is lost."""
        with self._lock:
            self._do(lambda tables: tables.replace(experiment_id, offset, payload))

    def remove(self, experiment_id: str) -> None:
        """Forget an experiment that is delivered."""
        with self._lock:
            self._do(lambda tables: tables.remove(experiment_id))
            if self._memory is not None and self._disk is not None:
                self._forget_on_disk(self._disk, experiment_id)
            held = self._held.pop(experiment_id, None)
            if held is not None and held.lock is not None:
                held.lock.release(remove=True)

    def _forget_on_disk(self, disk: SpoolTables, experiment_id: str) -> None:
        try:
            disk.remove(experiment_id)
        except sqlite3.Error as error:  # Still full: the next sender finds that the collector has it, and forgets it.
            self._on_trouble(f"the spool in {self.directory} cannot be written ({error})")

    def close(self) -> list[str]:
        """Let go of everything; what was kept in memory goes to disk if the disk takes it now.

        Returns:
            The experiments of which events are lost because it does not.
        """
        with self._lock:
            lost = self._keep_on_disk()
            for experiment_id, held in self._held.items():
                if held.lock is not None:
                    held.lock.release(remove=experiment_id in lost)
            self._held.clear()
            for tables in (self._memory, self._disk):
                if tables is not None:
                    tables.close()
        return lost

    def _keep_on_disk(self) -> list[str]:
        source = self._memory
        if source is None and file_of(self.directory) != self._file:
            source = self._disk  # Somebody has removed or replaced the file meanwhile.
        if source is None or not self._held:
            return []
        lost = list(self._held)
        try:
            target = open_tables(self.directory, self._on_trouble)
            try:
                for experiment_id in self._held:
                    target.adopt_from(source, experiment_id)
                    lost.remove(experiment_id)
            finally:
                target.close()
        except (sqlite3.Error, OSError, SpoolError) as error:
            self._on_trouble(f"events are lost: {self.directory} cannot be written ({error})")
        return lost


__all__ = ["DEFAULT_CAP_BYTES", "HeldExperiment", "Spool"]
