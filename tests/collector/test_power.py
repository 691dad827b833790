"""Power cuts: what was written and not synced is gone, wholly or in blocks; what was acknowledged is there."""

import os
import random
import shutil
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from collector.files import FileLayer
from collector.ledger import Receipt
from collector.names import INFLIGHT_NAME, LOG_NAME, META_NAME
from tests.collector.builders import batch, begin, log_lines, new_id, opened, record, stats, submit

_BLOCK = 512


@dataclass
class Image:
    """What a power cut leaves: files, and what had been acknowledged by then."""

    files: dict[str, bytes]
    lines: list[bytes]
    tags: dict[int, tuple[str, ...]]


def torn(rng: random.Random, before: bytes, after: bytes) -> bytes:
    """A file on its way from one state to the next: each block old, new, or never written where it is new."""
    size = rng.choice([len(before), len(after), rng.randint(*sorted((len(before), len(after))))])
    out = bytearray(size)
    for start in range(0, size, _BLOCK):
        old, new = before[start : start + _BLOCK], after[start : start + _BLOCK]
        block = new if old == new or rng.random() < 0.5 else old
        out[start : start + len(block)] = block
    return bytes(out[:size])


@dataclass
class Platter:
    """A file layer that knows what is synced, and cuts the power for a copy of the files now and then."""

    rng: random.Random
    images: list[Image] = field(default_factory=list)
    synced: dict[str, bytes] = field(default_factory=dict)
    lines: list[bytes] = field(default_factory=list)
    tags: dict[int, tuple[str, ...]] = field(default_factory=dict)

    def _look(self, fd: int) -> tuple[str, bytes]:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        data = path.read_bytes()
        # It was made, with its name, before anything was written to it.
        self.synced.setdefault(path.name, b"" if path.name == META_NAME else data)
        return path.name, data

    def _cut(self, fd: int) -> None:
        name, data = self._look(fd)
        for _ in range(3):
            files = {**self.synced, name: torn(self.rng, self.synced[name], data)}
            self.images.append(Image(files, list(self.lines), dict(self.tags)))

    def write(self, fd: int, data: bytes) -> int:
        self._look(fd)
        written = os.write(fd, data)
        self._cut(fd)
        return written

    def fdatasync(self, fd: int) -> None:
        os.fdatasync(fd)
        name, data = self._look(fd)
        self.synced[name] = data
        self._cut(fd)

    def ftruncate(self, fd: int, size: int) -> None:
        self._look(fd)
        os.ftruncate(fd, size)
        self._cut(fd)

    def layer(self) -> FileLayer:
        return FileLayer(self.write, self.fdatasync, self.ftruncate)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="names of open files are looked up in /proc")
def test_what_was_acknowledged_survives_a_power_cut_at_any_call(log_dir, tmp_path, caplog):
    """Cut at each call of the disk, unsynced blocks lost at random or left as NULs: lines and tags that were
    acknowledged are there, each once, and at most one warning a file is given."""
    platter = Platter(random.Random(3))
    with opened(log_dir, layer=platter.layer()) as store:
        for number in range(5):
            record(store, tensors=4 * number)
            platter.lines = log_lines(log_dir)
            store.annotate(store.index().by_number(number), lambda said, n=number: type(said)((*said.tags, f"t{n}")))
            platter.tags = {**platter.tags, number: (f"t{number}",)}
    assert len(platter.images) >= 60
    for place, image in enumerate(platter.images):
        copy = tmp_path / f"cut{place}"
        copy.mkdir()
        for name, data in image.files.items():
            (copy / name).write_bytes(data)
        caplog.clear()
        with opened(copy) as store:
            assert log_lines(copy)[: len(image.lines)] == image.lines
            assert store.index().count() >= len(image.lines)
            for number, tags in image.tags.items():
                assert store.annotation(store.index().by_number(number)).tags == tags
            warned = [entry.getMessage() for entry in caplog.records]
            assert len(warned) <= 2, warned
            record(store)
        shutil.rmtree(copy)


def test_a_file_has_its_name_before_anything_in_it_is_acknowledged(log_dir, monkeypatch):
    """The directory is synced when log, meta file and database have been made, before anything is acknowledged."""
    synced: list[set[str]] = []
    for module in ("logfile", "inflight"):
        monkeypatch.setattr(
            f"collector.{module}.sync_directory", lambda path: synced.append({file.name for file in path.iterdir()})
        )
    with opened(log_dir) as store:
        assert any(LOG_NAME in names for names in synced)
        (answer,) = submit(store, batch(new_id(), [begin()]))
        assert answer == Receipt(1)
        assert any(INFLIGHT_NAME in names for names in synced)
        number = record(store)
        store.annotate(store.index().by_id(number), lambda said: type(said)(("a",)))
        assert any(META_NAME in names for names in synced)


def test_events_survive_a_power_cut_between_any_two_commits(log_dir, tmp_path):
    """From one commit to the next the write-ahead log grows or begins anew, and the database takes over from it: with
    the blocks of either half written, everything that was acknowledged before is there."""
    rng = random.Random(4)
    experiment_id = new_id()
    states: list[tuple[bytes, bytes, int]] = []
    path = log_dir / INFLIGHT_NAME
    wal = Path(f"{path}-wal")
    with opened(log_dir) as store:
        offset = 0
        for step in range(24):
            count = rng.choice([1, 3, 200])
            events = [begin() if offset + i == 0 else stats(f"t{offset + i}") for i in range(count)]
            (answer,) = submit(store, batch(experiment_id, events, offset))
            assert answer == Receipt(offset + count)
            offset += count
            if step == 0:
                database = store._events._writer
                assert database.execute("PRAGMA synchronous").fetchone() == (2,), "FULL: each commit is synced"
                assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
                # So that the log begins anew often.
                database.execute("PRAGMA wal_autocheckpoint=6")
            states.append((path.read_bytes(), wal.read_bytes(), offset))
    assert any(len(after[1]) <= len(before[1]) for before, after in pairwise(states))
    for place, (before, after) in enumerate(pairwise(states)):
        for kind in range(4):
            copy = tmp_path / f"cut{place}-{kind}"
            copy.mkdir()
            if kind < 2:
                # While the log is written.
                files = before[0], torn(rng, before[1], after[1])
            else:
                # While the database is written, of what is synced in the log.
                files = torn(rng, before[0], after[0]), after[1]
            (copy / INFLIGHT_NAME).write_bytes(files[0])
            Path(f"{copy / INFLIGHT_NAME}-wal").write_bytes(files[1])
            with opened(copy) as store:
                committed = store.status(experiment_id).committed_offset
                assert committed >= (before if kind < 2 else after)[2]
                assert [first for first, _, _ in store.events(experiment_id, 0, max_bytes=1 << 30)][:1] == [0]
            shutil.rmtree(copy)
