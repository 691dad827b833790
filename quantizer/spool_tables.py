"""The spool's tables: statements on one SQLite connection, without policy (see `quantizer.spool`).

An event's position in its experiment is its offset for ever. What is given up for space keeps its row with no payload,
so offsets stay contiguous whatever is lost; it is sent as an empty event.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

# Only these are ever given up; begin, facts, results and finish are not.
SHEDDABLE = ("progress", "layer_stats")
ROW_OVERHEAD_BYTES = 64
# Kinds of rows that no event made: offsets that only the collector knows, and events that the disk has not kept.
_PADDING, _UNKNOWN = "heartbeat", "unknown"
_FORMAT = 1

_SCHEMA = """
CREATE TABLE experiments (
    id TEXT PRIMARY KEY, target TEXT NOT NULL, created REAL NOT NULL, touched REAL NOT NULL,
    next_offset INTEGER NOT NULL DEFAULT 0, acknowledged INTEGER NOT NULL DEFAULT 0,
    ended INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE events (
    experiment_id TEXT NOT NULL, position INTEGER NOT NULL, kind TEXT NOT NULL, payload BLOB,
    lost INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (experiment_id, position)
) WITHOUT ROWID;
"""


_COLUMNS = {
    *(("experiments", name) for name in ("id", "target", "created", "touched", "next_offset", "acknowledged")),
    *(("experiments", name) for name in ("ended", "bytes")),
    *(("events", name) for name in ("experiment_id", "position", "kind", "payload", "lost")),
}


@dataclass(frozen=True, slots=True)
class SpooledExperiment:
    """One experiment's row. Events at offsets below `acknowledged` are with the collector."""

    id: str
    target: str
    created: float
    touched: float
    next_offset: int
    acknowledged: int
    ended: bool
    bytes: int

    @property
    def pending(self) -> int:
        """Events that the collector has not acknowledged."""
        return max(0, self.next_offset - self.acknowledged)

    @property
    def done(self) -> bool:
        """Finished, and all of it acknowledged."""
        return self.ended and self.pending == 0


@dataclass(frozen=True, slots=True)
class SpooledEvent:
    """One event; no payload: it was given up for space."""

    offset: int
    kind: str
    payload: bytes | None


def _experiment(row: tuple[str, str, float, float, int, int, int, int]) -> SpooledExperiment:
    experiment_id, target, created, touched, next_offset, acknowledged, ended, size = row
    return SpooledExperiment(experiment_id, target, created, touched, next_offset, acknowledged, bool(ended), size)


class NewerFormatError(Exception):
    """A newer version of this program wrote the file."""


class DamagedTablesError(Exception):
    """The file is a database, and not, or no longer, what this program wrote."""


class SpoolTables:
    """The statements. Not safe for threads: the caller serializes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Make the tables, or look whether they are whole.

        Raises:
            NewerFormatError, DamagedTablesError: see there.
            sqlite3.Error: it is no database, or cannot be used now.
        """
        self._db = connection
        # A byte that has changed on disk is that event's damage, no reason not to read the others.
        connection.text_factory = lambda text: text.decode("utf-8", "replace")
        connection.isolation_level = None
        connection.execute("PRAGMA busy_timeout = 5000")
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version > _FORMAT:
            raise NewerFormatError(f"format {version}")
        if version == 0:
            if connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
                raise DamagedTablesError("it is another program's database")
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA journal_size_limit = 4194304")
        connection.execute("PRAGMA synchronous = FULL")
        with self._transaction():
            if int(connection.execute("PRAGMA user_version").fetchone()[0]) == 0:
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {_FORMAT}")
        self._check()

    def _check(self) -> None:
        # Every page is looked at: what is read later is what was written, or there is an error now.
        (found,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise DamagedTablesError(" ".join(str(found).split())[:200])
        columns = {(table, name) for table in ("experiments", "events") for name in self._columns(table)}
        if not columns >= _COLUMNS:
            raise DamagedTablesError("its tables are not the spool's")

    def _columns(self, table: str) -> list[str]:
        return [str(row[1]) for row in self._db.execute(f"PRAGMA table_info({table})")]

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            # SQLite has rolled back by itself after some errors (a full disk).
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def experiments(self) -> list[SpooledExperiment]:
        """All experiments, the oldest first."""
        rows = self._db.execute(
            "SELECT id, target, created, touched, next_offset, acknowledged, ended, bytes FROM experiments"
            " ORDER BY created, id"
        )
        return [_experiment(row) for row in rows]

    def experiment(self, experiment_id: str) -> SpooledExperiment | None:
        """One experiment, None where it is not here."""
        return next((row for row in self.experiments() if row.id == experiment_id), None)

    def add(self, experiment_id: str, target: str, now: float) -> None:
        """A new experiment without events; one that is here already stays as it is."""
        with self._transaction():
            self._db.execute(
                "INSERT OR IGNORE INTO experiments (id, target, created, touched) VALUES (?, ?, ?, ?)",
                (experiment_id, target, now, now),
            )

    def append(self, entries: Sequence[tuple[str, str, bytes]], now: float) -> None:
        """Add events in one transaction: (experiment id, kind, payload), each at the next offset of its experiment."""
        with self._transaction():
            for experiment_id, kind, payload in entries:
                self._insert(experiment_id, kind, payload)
                self._db.execute(
                    "UPDATE experiments SET touched = ?, ended = ended OR ? WHERE id = ?",
                    (now, kind == "finish", experiment_id),
                )

    def _insert(self, experiment_id: str, kind: str, payload: bytes | None) -> None:
        self._db.execute(
            "INSERT INTO events (experiment_id, position, kind, payload)"
            " SELECT id, next_offset, ?, ? FROM experiments WHERE id = ?",
            (kind, payload, experiment_id),
        )
        self._db.execute(
            "UPDATE experiments SET next_offset = next_offset + 1, bytes = bytes + ? WHERE id = ?",
            (ROW_OVERHEAD_BYTES + len(payload or b""), experiment_id),
        )

    def events(self, experiment_id: str, offset: int, limit: int) -> list[SpooledEvent]:
        """Up to `limit` events from `offset` on."""
        rows = self._db.execute(
            "SELECT position, kind, payload FROM events WHERE experiment_id = ? AND position >= ?"
            " ORDER BY position LIMIT ?",
            (experiment_id, offset, limit),
        )
        return [SpooledEvent(*row) for row in rows]

    def acknowledge(self, experiment_id: str, committed: int) -> None:
        """Note what the collector has; where that is less than before, what was given up since is lost after all."""
        with self._transaction():
            self._db.execute("UPDATE experiments SET acknowledged = ? WHERE id = ?", (committed, experiment_id))
            self._db.execute(
                "UPDATE events SET lost = 1 WHERE experiment_id = ? AND position >= ? AND payload IS NULL",
                (experiment_id, committed),
            )

    def pad(self, experiment_id: str, upto: int) -> None:
        """Fill offsets that the collector has and this file does not (it lost its tail) with empty events."""
        with self._transaction():
            row = self.experiment(experiment_id)
            for _ in range(upto - row.next_offset if row else 0):
                self._insert(experiment_id, _PADDING, None)

    def replace(self, experiment_id: str, offset: int, payload: bytes | None) -> None:
        """Put another payload in an event's place; none: the event is lost."""
        with self._transaction():
            self._db.execute(
                "UPDATE events SET payload = ?, lost = ? WHERE experiment_id = ? AND position = ?",
                (payload, payload is None, experiment_id, offset),
            )
            self._db.execute(
                "UPDATE experiments SET bytes = (SELECT SUM(? + COALESCE(LENGTH(payload), 0)) FROM events"
                " WHERE experiment_id = id) WHERE id = ?",
                (ROW_OVERHEAD_BYTES, experiment_id),
            )

    def restore(self, row: SpooledExperiment, begin: tuple[str, bytes], finish: tuple[str, bytes] | None) -> None:
        """An experiment of which only these events are left; of the others, what is not acknowledged is lost."""
        self.add(row.id, row.target, row.created)
        self.append([(row.id, *begin)], row.touched)
        with self._transaction():
            for _ in range(1, row.next_offset - (finish is not None)):
                self._insert(row.id, _UNKNOWN, None)
        if finish is not None:
            self.append([(row.id, *finish)], row.touched)
        self.acknowledge(row.id, row.acknowledged)

    def remove(self, experiment_id: str) -> None:
        """Forget an experiment and give its pages back."""
        with self._transaction():
            self._db.execute("DELETE FROM events WHERE experiment_id = ?", (experiment_id,))
            self._db.execute("DELETE FROM experiments WHERE id = ?", (experiment_id,))
        self._db.execute("PRAGMA incremental_vacuum").fetchall()

    def lost(self, experiment_id: str) -> dict[str, int]:
        """Events given up before the collector had them, by kind."""
        rows = self._db.execute(
            "SELECT kind, COUNT(*) FROM events WHERE experiment_id = ? AND lost = 1 AND kind != ? GROUP BY kind",
            (experiment_id, _PADDING),
        )
        return dict(rows.fetchall())

    def total_bytes(self) -> int:
        """What all events take."""
        return int(self._db.execute("SELECT COALESCE(SUM(bytes), 0) FROM experiments").fetchone()[0])

    def shed(self, excess_bytes: int) -> None:
        """Give up payloads worth `excess_bytes`: first acknowledged ones, then progress, then the oldest statistics."""
        with self._transaction():
            rows = self._db.execute(
                "SELECT e.experiment_id, e.position, LENGTH(e.payload), e.position >= x.acknowledged"
                " FROM events e JOIN experiments x ON x.id = e.experiment_id"
                " WHERE e.kind IN (?, ?) AND e.payload IS NOT NULL"
                " ORDER BY e.position >= x.acknowledged, e.kind = 'layer_stats', x.created, e.position",
                SHEDDABLE,
            )
            victims = []
            for experiment_id, offset, size, lost in rows:
                if excess_bytes <= 0:
                    break
                excess_bytes -= size
                victims.append((experiment_id, offset, size, lost))
            for experiment_id, offset, size, lost in victims:
                self._db.execute(
                    "UPDATE events SET payload = NULL, lost = ? WHERE experiment_id = ? AND position = ?",
                    (lost, experiment_id, offset),
                )
                self._db.execute("UPDATE experiments SET bytes = bytes - ? WHERE id = ?", (size, experiment_id))

    def adopt_from(self, other: "SpoolTables", experiment_id: str) -> None:
        """Copy an experiment as it stands in another spool, in place of what is here of it."""
        row = other.experiment(experiment_id)
        if row is None:
            return
        events = other._db.execute(
            "SELECT experiment_id, position, kind, payload, lost FROM events WHERE experiment_id = ?", (experiment_id,)
        )
        with self._transaction():
            self._db.execute("DELETE FROM events WHERE experiment_id = ?", (experiment_id,))
            self._db.execute(
                "INSERT OR REPLACE INTO experiments VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (row.id, row.target, row.created, row.touched, row.next_offset, row.acknowledged, row.ended, row.bytes),
            )
            self._db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", events)


__all__ = ["SHEDDABLE", "DamagedTablesError", "NewerFormatError", "SpoolTables", "SpooledEvent", "SpooledExperiment"]
