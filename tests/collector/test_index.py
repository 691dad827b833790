"""The index: disposable, and right about the log whatever became of its file."""

import math
import os
import sqlite3

import pytest

from collector.errors import GoneError
from collector.index_database import Database
from collector.lines import encode_line
from collector.names import INDEX_NAME
from collector.patience import patience
from collector.store import LOG_NAME
from tests.collector.builders import LEGACY_LINE, opened, record, stored_record


def _models(store):
    return [entry.basic_record()["config"]["model"] for entry in store.index().page(0, 100, descending=False)]


@pytest.fixture
def two(log_dir):
    with opened(log_dir) as store:
        record(store, model="first")
        record(store, model="second")
    return log_dir


def _garbage(path):
    path.write_bytes(os.urandom(20_000))


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _older(path):
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()


def _foreign(path):
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE other (x)")
    connection.close()


@pytest.mark.parametrize("harm", [_garbage, _cut, _older, _foreign, os.unlink], ids=lambda harm: harm.__name__)
def test_an_index_that_cannot_be_used_is_made_anew(two, harm):
    """Nothing is lost with it."""
    harm(two / INDEX_NAME)
    with opened(two) as store:
        assert _models(store) == ["first", "second"]
        record(store, model="third")
    with opened(two) as store:
        assert _models(store) == ["first", "second", "third"]


def test_a_log_that_is_another_is_indexed_anew(two):
    """Of the same size with other bytes, shorter, or of another inode."""
    log = two / LOG_NAME
    data = log.read_bytes()
    log.write_bytes(LEGACY_LINE * 2)
    with opened(two) as store:
        assert len(_models(store)) == 2
    log.write_bytes(LEGACY_LINE + LEGACY_LINE.replace(b"mamba-370m", b"mamba-130m"))
    with opened(two) as store:
        assert _models(store) == ["mamba-370m", "mamba-130m"]
    log.write_bytes(LEGACY_LINE)
    with opened(two) as store:
        assert _models(store) == ["mamba-370m"]
    log.unlink()
    log.write_bytes(data)
    with opened(two) as store:
        assert _models(store) == ["first", "second"]


def test_what_others_appended_is_added(two):
    """Without reading the rest again: what was said of lines stays."""
    with opened(two) as store:
        store.index().set_mark("meta", "5")
    with (two / LOG_NAME).open("ab") as file:
        file.write(LEGACY_LINE)
    with opened(two) as store:
        assert _models(store) == ["first", "second", "mamba-370m"]
        assert store.index().mark("meta") == "5"


def test_an_index_that_is_deleted_meanwhile_is_made_anew(two):
    """The collector that runs goes on, with all lines."""
    with opened(two) as store:
        assert store.index().count() == 2
        (two / INDEX_NAME).unlink()
        record(store, model="third")
        assert _models(store) == ["first", "second", "third"]


def test_two_processes_share_an_index(two, monkeypatch):
    """A reader of a large log, beside the writer: each line once, whoever indexed it."""
    monkeypatch.setattr("collector.index_open._SMALL_BYTES", 0)
    with opened(two) as writer, opened(two, read_only=True) as reader, opened(two, read_only=True) as other:
        for number in range(5):
            record(writer, model=f"m{number}")
            with (two / LOG_NAME).open("ab") as file:
                file.write(LEGACY_LINE)
            assert _models(reader) == _models(other) == _models(writer)
        assert writer.index().count() == 12


def test_where_no_file_can_be_made_the_index_is_private(two, monkeypatch):
    """As in a directory that may only be read."""
    monkeypatch.setattr("collector.index_open._SMALL_BYTES", 0)
    (two / INDEX_NAME).unlink()
    (two / INDEX_NAME).mkdir()
    with opened(two, read_only=True) as store:
        assert _models(store) == ["first", "second"]


@pytest.mark.parametrize("long", [False, True], ids=["in steps", "in one go"])
def test_a_full_disk_takes_the_index_elsewhere(log_dir, monkeypatch, caplog, long):
    """Records are stored and listed as before; one warning says where the index is now."""
    beside = Database._connect

    def connect(database):
        connection = beside(database)
        if database._path is not None and database._path.parent == log_dir:
            connection.execute("PRAGMA max_page_count = 40")
        return connection

    log_dir.mkdir()
    (log_dir / LOG_NAME).write_bytes(LEGACY_LINE * (1 if not long else 200))
    monkeypatch.setattr(Database, "_connect", connect)
    if long:
        monkeypatch.setattr("collector.index_open._LONG_BYTES", 1000)
    with opened(log_dir) as store:
        first = store.index().count()
        for number in range(60):
            record(store, model=f"m{number}" + "x" * 2000)
        assert store.index().count() == first + 60
        assert [entry.number for entry in store.index().page(first, 100, descending=False)] == list(
            range(first, first + 60)
        )
    said = [item.getMessage() for item in caplog.records if "indexed anew at every start" in item.getMessage()]
    assert len(said) == 1
    assert "cannot be kept" in said[0]


@pytest.mark.parametrize("read_only", [False, True])
def test_a_directory_in_its_place_takes_the_index_elsewhere(two, monkeypatch, caplog, tmp_path, read_only):
    """As in a directory that may only be read: what is made elsewhere is removed at the end."""
    monkeypatch.setattr("collector.index_open._SMALL_BYTES", 0)
    monkeypatch.setattr("collector.index_open._LONG_BYTES", 100)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (two / INDEX_NAME).unlink()
    (two / INDEX_NAME).mkdir()
    with opened(two, read_only=read_only) as store:
        assert _models(store) == ["first", "second"]
        assert any(path.name.startswith("collector-") for path in tmp_path.iterdir())
    assert not any(path.name.startswith("collector-") for path in tmp_path.iterdir())
    (said,) = [item.getMessage() for item in caplog.records if "cannot be kept" in item.getMessage()]
    assert "TMPDIR" in said


def test_a_question_that_nobody_waits_for_is_gone_on_with_later(log_dir, monkeypatch):
    """What was read for it is not read again."""
    monkeypatch.setattr("collector.index_tracked._STEP_LINES", 10)
    log_dir.mkdir()
    (log_dir / LOG_NAME).write_bytes(b"".join(encode_line(stored_record(number)) for number in range(95)))
    with opened(log_dir) as store:
        tracked = store.index()._tracked
        for ask in (lambda: tracked.statistic("clipped_ratio"), lambda: tracked.path(("command",))):
            waits = iter([True] * 4)
            with patience(math.inf, lambda waits=waits: not next(waits, False)), pytest.raises(GoneError):
                ask()
            steps = iter([True] * 6)
            with patience(math.inf, lambda steps=steps: not next(steps, False)):
                ask()
