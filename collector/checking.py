"""All files of an open store, checked (`collector.fsck`)."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from collector.catalog import Catalog
from collector.fold import events_from_payload
from collector.fsck import Checked, Finding, check_log, check_meta, check_set_aside
from collector.fsck_events import check_copy, check_events
from collector.inflight import Inflight
from collector.names import INFLIGHT_NAME, LOG_NAME, META_NAME
from collector.snapshot import Snapshot
from collector.subjects import Subject


def check_all(
    catalog: Catalog, events: Inflight | Snapshot, runs: Callable[[str], bool], checked: Checked
) -> Iterator[Finding]:
    """Read everything that is committed now, and tell what is wrong.

    Args:
        catalog: of the store; as of now.
        events: of its running experiments.
        runs: whether an experiment runs.
        checked: counts what is read.
    """

    def is_known(subject: Subject) -> bool:
        return catalog.place(subject) is not None or runs(str(subject.get("experiment_id")))

    meta_size, log_size, count = catalog.meta.size, catalog.log.committed, catalog.known().count()
    directory = catalog.path.parent
    if log_size:
        yield from _readable(catalog.path, check_log(catalog.path, log_size, checked))
    if checked.lines != count and log_size == catalog.log.committed:
        message = f"{count} lines are served, {checked.lines} are in the file: restart the collector"
        yield Finding("INDEX_DISAGREES", "ERROR", LOG_NAME, message)
    if meta_size:
        meta = directory / META_NAME
        yield from _readable(meta, check_meta(meta, meta_size, is_known, checked))
    if catalog.read_only:
        yield from _torn(LOG_NAME, catalog.log.size(), log_size)
        yield from _torn(META_NAME, catalog.meta.size_in_file(), meta_size)
    path = directory / INFLIGHT_NAME
    yield from _readable(path, _check_events(path, events, lambda name: catalog.find(name) is not None, checked))
    yield from check_set_aside(directory)


def _torn(name: str, size: int, committed: int) -> Iterator[Finding]:
    if size > committed:
        message = "bytes behind the last newline, never acknowledged: set aside when the store is next written"
        yield Finding("TORN_TAIL", "WARNING", name, message, committed)


def _check_events(
    path: Path, events: Inflight | Snapshot, has_line: Callable[[str], bool], checked: Checked
) -> Iterator[Finding]:
    if isinstance(events, Snapshot):
        yield from check_copy(path, _count_of, has_line, checked)
        return
    try:
        with events.at_one_moment() as connection:
            if connection is not None:
                checked.bytes += path.stat().st_size
                yield from check_events(connection, path.name, _count_of, has_line)
    except sqlite3.Error as error:
        yield Finding("UNREADABLE_FILE", "ERROR", path.name, f"it cannot be opened: {error}")


def _count_of(payload: bytes) -> int:
    from google.protobuf.message import DecodeError

    try:
        return len(events_from_payload(payload))
    except DecodeError as error:
        raise ValueError(str(error)) from None


def _readable(path: Path, findings: Iterator[Finding]) -> Iterator[Finding]:
    """Findings of a file, up to where it can be read."""
    try:
        yield from findings
    except OSError as error:
        message = f"it cannot be read: {error.strerror or error}; look at the disk and at the rights"
        yield Finding("UNREADABLE_FILE", "ERROR", path.name, message)


__all__ = ["check_all"]
