"""Every event of every experiment of this host, on local disk until the collector has it all.

Several processes share one spool: each sends the experiments it holds a lock for, which are its own and those whose
process is gone. When the disk cannot take more, the process keeps its own experiments in memory and says so once.
"""

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantizer.errors import SpoolError
from quantizer.locks import ExperimentLock
from quantizer.spool_tables import NewerFormatError, SpooledEvent, SpooledExperiment, SpoolTables

DEFAULT_CAP_BYTES = 256 * 2**20
MEMORY_CAP_BYTES = 64 * 2**20
_DISK_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG})
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_UNWRITABLE = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM})


def is_disk_trouble(error: BaseException) -> bool:
    """Whether an error, or what caused it, is a disk that is full or failing rather than a place that is wrong."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _DISK_ERRNOS:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


@dataclass(frozen=True, slots=True)
class HeldExperiment:
    """An experiment that this process sends. `orphan`: another process began it and is gone."""

    row: SpooledExperiment
    orphan: bool


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
        self._held: dict[str, tuple[ExperimentLock | None, bool]] = {}
        self._disk: SpoolTables | None = None
        self._memory: SpoolTables | None = None
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if not os.access(directory, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(directory))
            self._disk = self._open(directory / "spool.sqlite")
        except OSError as error:
            if not is_disk_trouble(error):
                raise SpoolError(_cannot_write(directory, error.strerror or str(error))) from error
            self._to_memory(error)
        except sqlite3.Error as error:
            if _code(error) in _UNWRITABLE:
                raise SpoolError(_cannot_write(directory, str(error))) from error
            self._to_memory(error)

    def _open(self, path: Path) -> SpoolTables:
        for attempt in range(20):
            try:
                return SpoolTables(sqlite3.connect(path, check_same_thread=False))
            except NewerFormatError as error:
                raise SpoolError(
                    f"the spool {path} was written by a newer version ({error}): use that version, or another --log_dir"
                ) from error
            except sqlite3.DatabaseError as error:
                if _code(error) in _DAMAGED:
                    aside = path.with_name(f"{path.name}.damaged-{int(time.time())}")
                    for suffix in ("", "-wal", "-shm"):
                        part = path.with_name(path.name + suffix)
                        if part.exists():
                            part.rename(aside.with_name(aside.name + suffix))
                    self._on_trouble(f"the spool {path} is damaged: it is kept as {aside.name}, and a new one is begun")
                elif _code(error) != sqlite3.SQLITE_BUSY or attempt == 19:
                    raise
                else:  # Another process makes the file at this moment.
                    time.sleep(0.05)
        raise SpoolError(f"the spool {path} is damaged and cannot be replaced: move {path.parent} away")

    def _to_memory(self, error: Exception) -> None:
        """Go on in memory, with the experiments of this process as they stand on disk."""
        memory = SpoolTables(sqlite3.connect(":memory:", check_same_thread=False))
        if self._disk is not None:
            for experiment_id in self._held:
                memory.adopt_from(self._disk, experiment_id)
        self._memory = memory
        self._on_trouble(
            f"the spool in {self.directory} cannot be written ({error}): the experiment goes on, its events are kept "
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

    def _write(self, operation: Callable[[SpoolTables], None]) -> None:
        try:
            operation(self._tables)
        except (sqlite3.Error, OSError) as error:
            if self._memory is not None:
                raise
            self._to_memory(error)
            operation(self._tables)

    # --- the experiment's side ---------------------------------------------------------------------------------------

    def begin(self, experiment_id: str, target: str, kind: str, payload: bytes) -> None:
        """A new experiment of this process, meant for `target`, with its first event."""
        with self._lock:
            try:
                lock = ExperimentLock.acquire(self.directory, experiment_id)
            except OSError:  # A disk without room for an empty file: nobody else will see the experiment either.
                lock = None
            self._held[experiment_id] = (lock, False)
            now = time.time()
            self._write(lambda tables: tables.add(experiment_id, target, now))
            self._write(lambda tables: tables.append([(experiment_id, kind, payload)], now))

    def append(self, entries: Sequence[tuple[str, str, bytes]]) -> None:
        """Add events, (experiment id, kind, payload) each; over the cap, the least valuable ones are given up."""
        with self._lock:
            self._write(lambda tables: tables.append(entries, time.time()))
            cap = MEMORY_CAP_BYTES if self.in_memory else self._cap_bytes
            excess = self._tables.total_bytes() - min(cap, self._cap_bytes)
            if excess > 0:
                slack = self._cap_bytes // 10  # Not again for every single event.
                self._write(lambda tables: tables.shed(excess + slack))

    # --- the sender's side -------------------------------------------------------------------------------------------

    def experiments(self) -> list[SpooledExperiment]:
        """All that are here, of all processes, the oldest first."""
        with self._lock:
            return self._tables.experiments()

    def held(self) -> list[HeldExperiment]:
        """Those that this process sends: its own first, then the others, each the oldest first."""
        with self._lock:
            rows = [row for row in self._tables.experiments() if row.id in self._held]
            held = [HeldExperiment(row, orphan=self._held[row.id][1]) for row in rows]
            return sorted(held, key=lambda experiment: experiment.orphan)

    def adopt(self) -> list[SpooledExperiment]:
        """Take over the experiments whose process is gone; the rows of those taken over now."""
        with self._lock:
            if self.in_memory:
                return []
            adopted = []
            for row in self._tables.experiments():
                if row.id in self._held:
                    continue
                try:
                    lock = ExperimentLock.acquire(self.directory, row.id)
                except OSError:
                    continue
                if lock is None:
                    continue
                if self._tables.experiment(row.id) is None:  # Delivered while we looked.
                    lock.release(remove=True)
                    continue
                self._held[row.id] = (lock, True)
                adopted.append(row)
            return adopted

    def events(self, experiment_id: str, limit: int) -> list[SpooledEvent]:
        """The first events that the collector has not acknowledged."""
        with self._lock:
            row = self._tables.experiment(experiment_id)
            return self._tables.events(experiment_id, row.acknowledged, limit) if row else []

    def lost(self, experiment_id: str) -> dict[str, int]:
        """Events given up before the collector had them, by kind."""
        with self._lock:
            return self._tables.lost(experiment_id)

    def acknowledge(self, experiment_id: str, committed: int) -> None:
        """Note what the collector has (it may be less than before: it lost its disk)."""
        with self._lock:
            self._write(lambda tables: tables.acknowledge(experiment_id, committed))

    def pad(self, experiment_id: str, upto: int) -> None:
        """Fill offsets that the collector has and this spool does not."""
        with self._lock:
            self._write(lambda tables: tables.pad(experiment_id, upto))

    def remove(self, experiment_id: str) -> None:
        """Forget an experiment that is delivered."""
        with self._lock:
            self._write(lambda tables: tables.remove(experiment_id))
            if self._memory is not None and self._disk is not None:
                self._forget_on_disk(self._disk, experiment_id)
            lock, _ = self._held.pop(experiment_id, (None, False))
            if lock is not None:
                lock.release(remove=True)

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
        lost = []
        with self._lock:
            for experiment_id in self._held:
                try:
                    if self._memory is not None:
                        self._keep_on_disk(self._memory, experiment_id)
                except (sqlite3.Error, OSError) as error:
                    lost.append(experiment_id)
                    self._on_trouble(f"events kept in memory are lost: {self.directory} cannot be written ({error})")
            for experiment_id, (lock, _) in self._held.items():
                if lock is not None:
                    lock.release(remove=experiment_id in lost)
            self._held.clear()
            for tables in (self._memory, self._disk):
                if tables is not None:
                    tables.close()
        return lost

    def _keep_on_disk(self, memory: SpoolTables, experiment_id: str) -> None:
        if self._disk is None:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._disk = self._open(self.directory / "spool.sqlite")
        self._disk.adopt_from(memory, experiment_id)


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _cannot_write(directory: Path, reason: str) -> str:
    return f"cannot write the spool in {directory} ({reason}): give --log_dir a directory that can be written"


__all__ = ["DEFAULT_CAP_BYTES", "HeldExperiment", "Spool", "is_disk_trouble"]
