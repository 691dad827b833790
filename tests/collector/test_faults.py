"""Failing disks: what cannot be written is not acknowledged, reads go on, and what comes after is whole."""

import errno
import json
import os

import pytest

from collector.errors import StoreFullError, StoreUnavailableError
from collector.files import FileLayer
from collector.ledger import Receipt
from collector.store import LOG_NAME
from tests.collector.builders import batch, log_lines, new_id, opened, record, submit, whole


class Disk:
    """A file layer whose next calls fail as told; each failure happens once."""

    def __init__(self) -> None:
        self.failures: dict[str, list[int]] = {}
        self.short = False
        self.calls: list[str] = []

    def fail(self, call: str, *codes: int) -> None:
        self.failures[call] = list(codes)

    def _enter(self, call: str) -> None:
        self.calls.append(call)
        codes = self.failures.get(call)
        if codes:
            code = codes.pop(0)
            raise OSError(code, os.strerror(code))

    def write(self, fd: int, data: bytes) -> int:
        self._enter("write")
        if self.short:
            self.short = False
            return os.write(fd, data[: len(data) // 2])
        return os.write(fd, data)

    def fdatasync(self, fd: int) -> None:
        self._enter("fdatasync")
        os.fdatasync(fd)

    def ftruncate(self, fd: int, size: int) -> None:
        self._enter("ftruncate")
        os.ftruncate(fd, size)

    def layer(self) -> FileLayer:
        return FileLayer(self.write, self.fdatasync, self.ftruncate)


def refused_then_taken(log_dir, prepare, error) -> None:
    """One experiment is refused with `error` and changes nothing; sent again it is taken, once."""
    disk = Disk()
    with opened(log_dir, layer=disk.layer()) as store:
        record(store)
        before = (log_dir / LOG_NAME).read_bytes()
        experiment_id = new_id()
        prepare(disk)
        (refused,) = submit(store, batch(experiment_id, whole()))
        assert type(refused) is error, refused
        assert store.record(store.index().by_number(0))["status"] == "COMPLETED"
        (taken,) = submit(store, batch(experiment_id, whole()))
        assert taken == Receipt(len(whole()), 1, finished=True)
        record(store)
    lines = log_lines(log_dir)
    assert b"".join(lines).startswith(before)
    assert [json.loads(line)["events"] for line in lines] == [len(whole())] * 3
    assert not list(log_dir.glob("*.torn-*"))


@pytest.mark.parametrize(
    ("code", "error"),
    [(errno.ENOSPC, StoreFullError), (errno.EDQUOT, StoreFullError), (errno.EIO, StoreUnavailableError)],
)
def test_a_write_that_fails_is_not_acknowledged(log_dir, code, error):
    """ENOSPC and EIO: no line, no acknowledgement, reads go on; the next attempt succeeds."""
    refused_then_taken(log_dir, lambda disk: disk.fail("write", code), error)


def test_a_short_write_is_cut_back(log_dir):
    """Half a line is taken off again before anything else is written."""

    def shorten(disk: Disk) -> None:
        disk.short = True

    refused_then_taken(log_dir, shorten, StoreUnavailableError)


def test_a_short_write_that_cannot_be_cut_back_at_once_is_cut_back_later(log_dir):
    """A failing ftruncate only defers it: the next append begins by cutting."""

    def shorten(disk: Disk) -> None:
        disk.short = True
        disk.fail("ftruncate", errno.EIO)

    refused_then_taken(log_dir, shorten, StoreUnavailableError)


def test_a_sync_that_fails_is_not_tried_again_and_believed(log_dir):
    """After a failed fdatasync the line is taken off, the file opened anew, and the line written once more in full."""
    refused_then_taken(log_dir, lambda disk: disk.fail("fdatasync", errno.EIO), StoreUnavailableError)


def test_a_disk_that_goes_on_failing_after_a_sync_is_survived(log_dir):
    """Also where the reopened file cannot be synced either."""
    refused_then_taken(log_dir, lambda disk: disk.fail("fdatasync", errno.EIO, errno.EIO), StoreUnavailableError)


@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_an_interrupted_call_is_no_failure(log_dir, call):
    """EINTR: called again, acknowledged."""
    disk = Disk()
    with opened(log_dir, layer=disk.layer()) as store:
        disk.fail(call, errno.EINTR, errno.EINTR)
        record(store)
        assert disk.calls.count(call) == 3
    assert len(log_lines(log_dir)) == 1


def test_a_line_that_could_not_be_written_gets_written_by_itself(log_dir):
    """A finished experiment whose sender never comes back has its line once the disk has room again."""
    disk = Disk()
    experiment_id = new_id()
    with opened(log_dir, layer=disk.layer()) as store:
        disk.fail("write", *[errno.ENOSPC] * 100)
        (refused,) = submit(store, batch(experiment_id, whole()))
        assert isinstance(refused, StoreFullError)
        disk.failures.clear()
    with opened(log_dir) as store:
        assert store.status(experiment_id) == Receipt(len(whole()), 0, finished=True)


def test_events_that_cannot_be_stored_are_not_acknowledged(log_dir):
    """A full disk under the database of running experiments: refused, and taken when sent again."""
    experiment_id, events = new_id(), whole(tensors=1000)
    with opened(log_dir) as store:
        record(store)
        database = store._events._writer
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count={pages}")
        (refused,) = submit(store, batch(experiment_id, events))
        assert isinstance(refused, StoreFullError)
        assert store.status(experiment_id) == Receipt(0)
        assert store.index().count() == 1
        database.execute("PRAGMA max_page_count=1000000")
        (taken,) = submit(store, batch(experiment_id, events))
        assert taken == Receipt(len(events), 1, finished=True)
