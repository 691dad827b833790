"""Failing disks: what cannot be written is not acknowledged, reads go on, and what comes after is whole."""

import errno
import json
import os
import resource
import threading
from queue import SimpleQueue

import pytest

from collector.errors import StoreFullError, StoreUnavailableError
from collector.files import FileLayer
from collector.ledger import Receipt
from collector.names import LOG_NAME, META_NAME
from tests.collector.builders import batch, begin, log_lines, new_id, opened, record, stats, submit, whole


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


def annotate_refused_then_taken(log_dir, prepare, error) -> None:
    """A tag is refused with `error` and changes nothing; said again it is taken, and there after a restart."""
    disk = Disk()
    with opened(log_dir, layer=disk.layer()) as store:
        record(store)
        say = lambda *tags: store.annotate(store.index().by_number(0), lambda said: type(said)(tags))  # noqa: E731
        say("a")
        before = (log_dir / META_NAME).read_bytes()
        prepare(disk)
        with pytest.raises(error):
            say("b")
        assert store.annotation(store.index().by_number(0)).tags == ("a",)
        assert store.index().by_number(0).annotation.tags == ("a",)
        say("c")
        record(store)
    assert (log_dir / META_NAME).read_bytes().startswith(before)
    with opened(log_dir) as store:
        assert store.meta.corrupt == 0
        assert store.annotation(store.index().by_number(0)).tags == ("c",)
        assert store.index().count() == 2
    assert not list(log_dir.glob("*.torn-*"))


@pytest.mark.parametrize(
    ("prepare", "error"),
    [
        (lambda disk: disk.fail("write", errno.ENOSPC), StoreFullError),
        (lambda disk: disk.fail("write", errno.EIO), StoreUnavailableError),
        (lambda disk: setattr(disk, "short", True), StoreUnavailableError),
        (lambda disk: disk.fail("fdatasync", errno.EIO), StoreUnavailableError),
        (lambda disk: disk.fail("fdatasync", errno.EIO, errno.EIO), StoreUnavailableError),
        (lambda disk: (setattr(disk, "short", True), disk.fail("ftruncate", errno.EIO)), StoreUnavailableError),
    ],
    ids=["full", "broken", "short", "sync", "sync twice", "short, not cut"],
)
def test_what_cannot_be_said_durably_is_refused(log_dir, prepare, error):
    """The file of tags and amendments fails as the log does: refused, cut back, and whole afterwards."""
    annotate_refused_then_taken(log_dir, prepare, error)


def test_after_a_sync_that_failed_the_tail_is_read_back(log_dir, monkeypatch):
    """A last line that is not on the disk as it was written keeps the log closed to appends, not to reads."""
    disk = Disk()
    with opened(log_dir, layer=disk.layer()) as store:
        record(store)
        log = store._catalog.log
        looked: list[tuple[int, int]] = []
        read = log.read

        def reading(offset: int, length: int) -> bytes:
            looked.append((offset, length))
            return read(offset, length)

        monkeypatch.setattr(log, "read", reading)
        disk.fail("fdatasync", errno.EIO)
        (refused,) = submit(store, batch(new_id(), whole()))
        assert isinstance(refused, StoreUnavailableError)
        assert (0, log.committed) in looked, "the last line was not read back"


def test_a_slow_sync_holds_up_those_who_wait_for_it_and_nobody_else(log_dir):
    """While a sync hangs: lists, records and status are answered; finishes and tags wait, and are taken in the end."""
    hanging, go_on = threading.Event(), threading.Event()
    slow = False

    def fdatasync(fd: int) -> None:
        if slow:
            hanging.set()
            assert go_on.wait(60)
        os.fdatasync(fd)

    with opened(log_dir, layer=FileLayer(fdatasync=fdatasync)) as store:
        first = record(store)
        slow = True
        answers: SimpleQueue[object] = SimpleQueue()
        second, third = new_id(), new_id()
        store.submit(batch(second, whole()), answers.put)
        assert hanging.wait(60)
        store.submit(batch(third, [begin()]), answers.put)
        entry = store.index().by_id(first)
        tagged = threading.Thread(target=store.annotate, args=(entry, lambda said: type(said)(("a",))))
        tagged.start()
        assert store.index().count() == 1
        assert store.record(entry)["status"] == "COMPLETED"
        assert store.status(first).finished
        assert not store.status(second).finished
        assert store.status(third) == Receipt(0)
        assert store.events(second, 0, max_bytes=1 << 20)
        assert answers.empty(), "acknowledged before it was synced"
        slow = False
        go_on.set()
        assert answers.get(timeout=60) == Receipt(len(whole()), 1, finished=True)
        assert answers.get(timeout=60) == Receipt(1)
        tagged.join(60)
        assert not tagged.is_alive()
        assert store.annotation(entry).tags == ("a",)


def test_a_disk_that_takes_no_more_bytes_under_the_database(log_dir):
    """Real writes that fail (a limit on the size of files): refused, reads go on; taken once there is room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    experiment_id = new_id()
    events = [begin(), *(stats(f"t{place}") for place in range(4000))]
    with opened(log_dir) as store:
        record(store)
        submit(store, batch(experiment_id, events[:1]))
        size = max(file.stat().st_size for file in log_dir.iterdir())
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 4096, hard))
        try:
            (refused,) = submit(store, batch(experiment_id, events[1:], 1))
            assert isinstance(refused, (StoreFullError, StoreUnavailableError)), refused
            assert store.status(experiment_id) == Receipt(1)
            assert store.index().count() == 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        (taken,) = submit(store, batch(experiment_id, events[1:], 1))
        assert taken == Receipt(len(events))
    with opened(log_dir) as store:
        assert store.status(experiment_id) == Receipt(len(events))
