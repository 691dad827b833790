"""The store's invariants: nothing acknowledged is lost, nothing is twice, numbers are for ever, damage is contained."""

import json
import logging
import shutil
import sqlite3
from pathlib import Path

import pytest

from collector.errors import CorruptLineError, EndedError, OffsetGapError, ReadOnlyError, StoreUnavailableError
from collector.fold import CODEC, fold_record, payload_from_events
from collector.inflight import Inflight
from collector.ledger import Receipt
from collector.lines import encode_line
from collector.store import INFLIGHT_NAME, LOG_NAME, open_store
from tests.collector.builders import (
    LEGACY_LINE,
    batch,
    begin,
    finish,
    log_lines,
    new_id,
    opened,
    record,
    result,
    stats,
    submit,
    whole,
)


def small_line(text: str) -> bytes:
    """A short line of our own, for tests that look at every byte."""
    return encode_line({"command": text, "schema_version": 1})


def commands(store) -> list[str | None]:
    """What each line holds; None where it is corrupt."""
    entries = store.index().page(0, 1000, descending=False)
    return [None if entry.corrupt else entry.basic_record()["command"] for entry in entries]


def torn_files(log_dir: Path) -> list[Path]:
    return sorted(log_dir.glob("*.torn-*"))


def test_an_experiment_becomes_one_line_with_its_keys_in_order(log_dir, store):
    """The record has the fixed keys first, in their order, and its checksum last."""
    record(store)
    (line,) = log_lines(log_dir)
    assert list(json.loads(line)) == [
        "timestamp",
        "command",
        "config",
        "activation_stats",
        "reorder_summary",
        "results",
        "schema_version",
        "experiment_id",
        "status",
        "error",
        "duration_s",
        "phases",
        "start_time",
        "environment",
        "model",
        "calibration",
        "model_size_bytes",
        "artifact",
        "dropped",
        "events",
        "crc32c",
    ]


def test_an_experiment_in_many_batches_is_one_line_and_its_events_are_gone(log_dir, store):
    """finish folds all events into one line and deletes them."""
    experiment_id = new_id()
    events = [begin(), *(stats(f"t{i}") for i in range(10)), result(0.5), finish()]
    answers = submit(store, *(batch(experiment_id, [event], offset) for offset, event in enumerate(events)))
    assert answers[-1] == Receipt(len(events), 0, finished=True)
    entry = store.index().by_id(experiment_id)
    assert list(store.record(entry)["activation_stats"]) == [f"t{i}" for i in range(10)]
    assert store.running() == {}
    store.close()
    with sqlite3.connect(log_dir / INFLIGHT_NAME) as database:
        assert database.execute("SELECT count(*) FROM batches").fetchone() == (0,)
    database.close()


def test_repeated_and_overlapping_batches_are_stored_once(store):
    """An offset that is there already is acknowledged and not stored again, also in part."""
    experiment_id = new_id()
    first = batch(experiment_id, [begin(), stats("a"), stats("b")])
    overlap = batch(experiment_id, [stats("b"), stats("c"), result(0.25)], 2)
    tail = batch(experiment_id, [result(0.25), finish()], 4)
    answers = submit(store, first, first, overlap, overlap, first, tail)
    assert [answer.committed_offset for answer in answers[-2:]] == [6, 6]
    kept = store.record(store.index().by_id(experiment_id))
    assert list(kept["activation_stats"]) == ["a", "b", "c"]
    assert kept["events"] == 6


def test_a_gap_names_the_offset_that_is_wanted(store):
    """Events are never stored with a hole before them."""
    experiment_id = new_id()
    (gap,) = submit(store, batch(experiment_id, [stats()], 7))
    assert isinstance(gap, OffsetGapError)
    assert gap.wanted_offset == 0
    submit(store, batch(experiment_id, [begin(), stats()]))
    (gap,) = submit(store, batch(experiment_id, [stats()], 7))
    assert isinstance(gap, OffsetGapError)
    assert gap.wanted_offset == 2


def test_an_experiment_that_has_its_line_takes_repeats_and_nothing_new(log_dir, store):
    """Repeats after the end are acknowledged with the number, new events refused, also after a restart."""
    experiment_id = record(store)
    events = whole()
    store.close()
    for file in log_dir.glob(f"{INFLIGHT_NAME}*"):
        file.unlink()
    with opened(log_dir) as again:
        repeat, more, beat = submit(
            again,
            batch(experiment_id, events),
            batch(experiment_id, [stats()], len(events)),
            batch(experiment_id, []),
        )
        assert repeat == beat == Receipt(len(events), 0, finished=True)
        assert isinstance(more, EndedError)
        assert again.status(experiment_id) == repeat
    assert len(log_lines(log_dir)) == 1


def test_heartbeats_take_no_position(store):
    """A batch without events is answered with what is on disk, and stores nothing."""
    experiment_id = new_id()
    assert submit(store, batch(experiment_id, [])) == [Receipt(0)]
    submit(store, batch(experiment_id, [begin()]))
    assert submit(store, batch(experiment_id, [], 5)) == [Receipt(1)]


def test_running_experiments_survive_a_restart(log_dir):
    """What was acknowledged before is there after, and the experiment goes on where it was."""
    experiment_id = new_id()
    with opened(log_dir) as store:
        submit(store, batch(experiment_id, [begin(), stats("a")]))
    with opened(log_dir) as store:
        assert store.status(experiment_id) == Receipt(2)
        submit(store, batch(experiment_id, [stats("b"), finish()], 2))
        assert list(store.record(store.index().by_number(0))["activation_stats"]) == ["a", "b"]


def test_a_crash_between_the_line_and_the_deletion_leaves_one_line(log_dir):
    """Events whose experiment has its line are deleted at open."""
    experiment_id = new_id()
    events = [begin(), finish()]
    with opened(log_dir):
        pass
    inflight = Inflight(log_dir / INFLIGHT_NAME)
    inflight.add([batch(experiment_id, events)])
    inflight.close()
    line = encode_line(fold_record(experiment_id, [(payload_from_events(events), 2)]))
    (log_dir / LOG_NAME).write_bytes(line)
    with opened(log_dir) as store:
        assert store.running() == {}
        assert store.status(experiment_id) == Receipt(2, 0, finished=True)
    assert log_lines(log_dir) == [line]


def test_a_crash_between_the_finish_and_the_line_leaves_one_line(log_dir):
    """Events with a finish and without a line get their line at open."""
    experiment_id = new_id()
    with opened(log_dir):
        pass
    inflight = Inflight(log_dir / INFLIGHT_NAME)
    inflight.add([batch(experiment_id, [begin(), stats()]), batch(experiment_id, [finish()], 2)])
    inflight.close()
    with opened(log_dir) as store:
        assert store.status(experiment_id) == Receipt(3, 0, finished=True)
    assert len(log_lines(log_dir)) == 1


def test_two_senders_of_one_experiment_leave_one_whole_line(store):
    """Interleaved streams of the same events cannot make a hole, a repeat or a second line."""
    experiment_id = new_id()
    events = whole(tensors=20)
    answers = submit(
        store,
        *(
            batch(experiment_id, events[start : start + size], start)
            for size in (3, 5)
            for start in range(0, len(events), size)
        ),
    )
    assert sum(isinstance(answer, Receipt) for answer in answers) >= len(events) // 3
    assert store.index().count() == 1
    assert len(store.record(store.index().by_number(0))["activation_stats"]) == 20


# --- damage ---


def test_truncation_anywhere_in_the_last_two_lines_loses_nothing_before(tmp_path, caplog):
    """Cut at any byte: every whole line is served, the rest is set aside with one warning, and appends go on."""
    lines = [small_line("a"), small_line("b"), small_line("c")]
    data = b"".join(lines)
    for cut in range(len(lines[0]), len(data) + 1):
        log_dir = tmp_path / str(cut)
        log_dir.mkdir()
        (log_dir / LOG_NAME).write_bytes(data[:cut])
        caplog.clear()
        with opened(log_dir) as store:
            whole_lines = data[:cut].count(b"\n")
            assert commands(store) == ["a", "b", "c"][:whole_lines]
        rest = data[:cut].rpartition(b"\n")[2]
        assert [file.read_bytes() for file in torn_files(log_dir)] == ([rest] if rest else [])
        assert len(caplog.records) == (1 if rest else 0)
        assert (log_dir / LOG_NAME).read_bytes() == data[: cut - len(rest)]
        shutil.rmtree(log_dir)


def test_a_flipped_byte_costs_its_own_line_and_nothing_else(tmp_path, caplog):
    """Whichever byte of the middle line changes: that line is corrupt at most, the others keep their numbers."""
    lines = [small_line("a"), small_line("b"), small_line("c")]
    log_dir = tmp_path / "logs"
    log_dir.mkdir()
    for place in range(len(lines[1])):
        middle = bytearray(lines[1])
        middle[place] ^= 0x04
        data = lines[0] + bytes(middle) + lines[2]
        (log_dir / LOG_NAME).write_bytes(data)
        with opened(log_dir) as store:
            if place == len(lines[1]) - 1:
                assert commands(store) == ["a", "b", "c"], "the newline: the two lines are told apart again"
            else:
                assert commands(store) == ["a", None, "c"], f"byte {place}"
                assert store.index().corrupt_count() == 1
        assert (log_dir / LOG_NAME).read_bytes() == data
    assert torn_files(log_dir) == []


def test_a_last_line_with_its_newline_is_never_cut(log_dir):
    """The newline means committed: a bad last line stays, is corrupt, keeps its number; the next one comes after it."""
    log_dir.mkdir()
    bad = small_line("b").replace(b'"b"', b'"x"')
    (log_dir / LOG_NAME).write_bytes(small_line("a") + bad + b"not json\n")
    with opened(log_dir) as store:
        assert commands(store) == ["a", None, None]
        experiment_id = record(store)
        assert store.status(experiment_id).number == 3
        with pytest.raises(CorruptLineError, match=r"experiment 1 cannot be read: the line at byte \d+ is corrupt"):
            store.record(store.index().by_number(1))
    assert log_lines(log_dir)[1:3] == [bad, b"not json\n"]


def test_a_block_of_nuls_at_the_end_is_set_aside(log_dir, caplog):
    """What a power cut leaves of an append that never was: kept in a file of its own, cut off, warned of once."""
    log_dir.mkdir()
    (log_dir / LOG_NAME).write_bytes(small_line("a") + b"\0" * 5000)
    with opened(log_dir) as store:
        assert commands(store) == ["a"]
    (torn,) = torn_files(log_dir)
    assert torn.read_bytes() == b"\0" * 5000
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert torn.name in caplog.text
    caplog.clear()
    with opened(log_dir):
        pass
    assert caplog.records == []


def test_nuls_before_a_line_do_not_hide_it(log_dir):
    """A line that another program wrote behind such a block is served."""
    log_dir.mkdir()
    (log_dir / LOG_NAME).write_bytes(small_line("a") + b"\0" * 5000 + small_line("b") + LEGACY_LINE)
    with opened(log_dir) as store:
        assert commands(store) == ["a", "b", "python main.py mamba-370m"]


def test_odd_files_are_read(log_dir):
    """Byte order mark, CRLF, blank lines, lines of the earlier logger: read, numbered, and not a byte is changed."""
    log_dir.mkdir()
    data = b"\xef\xbb\xbf" + LEGACY_LINE[:-1] + b"\r\n" + b"\n  \r\n" + small_line("b")[:-1] + b"\r\n" + b"\xff\xfe\n"
    (log_dir / LOG_NAME).write_bytes(data)
    with opened(log_dir) as store:
        assert commands(store) == ["python main.py mamba-370m", "b", None]
        record(store)
    assert (log_dir / LOG_NAME).read_bytes().startswith(data)


def test_an_empty_file_is_an_empty_store(log_dir):
    """No lines, no warnings."""
    log_dir.mkdir()
    (log_dir / LOG_NAME).write_bytes(b"")
    with opened(log_dir) as store:
        assert commands(store) == []
        record(store)
        assert store.index().count() == 1


def test_a_line_that_is_too_long_is_corrupt_and_not_read(log_dir, monkeypatch):
    """One monstrous line does not keep the store closed."""
    monkeypatch.setattr("collector.scanning.MAX_LINE_BYTES", 1000)
    log_dir.mkdir()
    (log_dir / LOG_NAME).write_bytes(small_line("a") + small_line("b" * 2000) + small_line("c"))
    with opened(log_dir) as store:
        assert commands(store) == ["a", None, "c"]


@pytest.mark.parametrize("damage", [b"this is no database" * 1000, b"SQLite format 3\0" + b"\x07" * 8000])
def test_a_damaged_database_is_moved_aside(log_dir, caplog, damage):
    """Events that cannot be read are kept in a file of their own with a warning; the log is served and goes on."""
    with opened(log_dir) as store:
        record(store)
        submit(store, batch(new_id(), [begin()]))
    (log_dir / INFLIGHT_NAME).write_bytes(damage)
    with opened(log_dir) as store:
        assert store.running() == {}
        record(store)
        assert store.index().count() == 2
    moved = list(log_dir.glob("*.corrupt-*"))
    assert [file.read_bytes() for file in moved] == [damage]
    assert moved[0].name in caplog.text


@pytest.mark.parametrize("keep", [100, 5000, 40_000])
def test_a_database_that_was_cut_is_moved_aside_or_read(log_dir, keep):
    """Cut anywhere, it keeps nothing closed: experiments go on where it says, or begin anew."""
    experiment_id = new_id()
    with opened(log_dir) as store:
        submit(store, batch(experiment_id, [begin(), *(stats(f"t{i}") for i in range(2000))]))
    path = log_dir / INFLIGHT_NAME
    path.write_bytes(path.read_bytes()[:keep])
    with opened(log_dir) as store:
        assert store.status(experiment_id).committed_offset in (0, 2001)
        record(store)
        assert store.index().count() == 1
    assert len(list(log_dir.glob("*.corrupt-*"))) == 1


def test_many_damaged_lines_are_one_warning(log_dir, caplog):
    """Somebody's pretty-printed file is not a screen full of complaints."""
    log_dir.mkdir()
    (log_dir / LOG_NAME).write_text(json.dumps(json.loads(LEGACY_LINE), indent=2) + "\n")
    with opened(log_dir) as store:
        assert store.index().corrupt_count() > 20
    assert len(caplog.records) == 1
    assert "lines cannot be read, the first is number 0" in caplog.text


def test_lines_that_another_program_appends_are_taken_in(log_dir, store):
    """The earlier logger knows no lock: its lines are served at once, and numbers follow the file."""
    record(store)
    with (log_dir / LOG_NAME).open("ab") as file:
        file.write(LEGACY_LINE)
    assert store.index().count() == 2
    with (log_dir / LOG_NAME).open("ab") as file:
        file.write(LEGACY_LINE + b'{"half": ')
    experiment_id = record(store)
    assert store.status(experiment_id).number == 3
    assert [file.read_bytes() for file in torn_files(log_dir)] == [b'{"half": ']
    assert [entry.corrupt for entry in store.index().page(0, 10, descending=False)] == [False] * 4


def test_a_log_that_was_replaced_takes_no_line_and_no_acknowledgement(log_dir):
    """A line in a file that nobody finds again is no line: the finish waits until the log is back or reopened."""
    with opened(log_dir) as store:
        record(store)
        (log_dir / LOG_NAME).rename(log_dir / "elsewhere")
        experiment_id = new_id()
        (refused,) = submit(store, batch(experiment_id, whole()))
        assert isinstance(refused, StoreUnavailableError)
        assert "removed or replaced" in str(refused)
        (log_dir / "elsewhere").rename(log_dir / LOG_NAME)
        (taken,) = submit(store, batch(experiment_id, whole()))
        assert taken == Receipt(len(whole()), 1, finished=True)


# --- reading only ---


def test_reading_only_touches_nothing(log_dir):
    """No lock, no repair, no file made; half a line is not served; running experiments are seen."""
    with opened(log_dir) as store:
        record(store)
        running = new_id()
        submit(store, batch(running, [begin(), stats()]))
    with (log_dir / LOG_NAME).open("ab") as file:
        file.write(b'{"half": ')
    before = {file.name: file.read_bytes() for file in log_dir.iterdir()}
    with opened(log_dir, read_only=True) as store:
        assert store.index().count() == 1
        assert store.status(running) == Receipt(2)
        with pytest.raises(ReadOnlyError):
            store.submit(batch(new_id(), [begin()]), print)
    assert {file.name: file.read_bytes() for file in log_dir.iterdir()} == before


def test_reading_only_sees_what_is_appended_meanwhile(log_dir):
    """A directory that is not there is an empty store; what another process records in it appears."""
    with opened(log_dir, read_only=True) as reader:
        assert reader.index().count() == 0
        assert not log_dir.exists()
        with opened(log_dir) as writer:
            record(writer)
            assert reader.index().count() == 1
            record(writer)
            assert reader.index().count() == 2


def test_reading_only_follows_what_another_process_runs(log_dir, monkeypatch):
    """Experiments that begin, go on and end elsewhere are seen as they do, from a database that is being written."""
    monkeypatch.setattr("collector.snapshot._RENEW_S", 0.0)
    first, second = new_id(), new_id()
    with opened(log_dir, read_only=True) as reader, opened(log_dir) as writer:
        assert reader.running() == {}
        submit(writer, batch(first, [begin()]))
        assert reader.status(first) == Receipt(1)
        submit(writer, batch(first, [stats(f"t{i}") for i in range(500)], 1), batch(second, [begin()]))
        assert {name: state.committed for name, state in reader.running().items()} == {first: 501, second: 1}
        assert [item[:2] for item in reader.events(first, 0, max_bytes=1 << 20)] == [(0, 1), (1, 500)]
        submit(writer, batch(first, [finish()], 501))
        assert list(reader.running()) == [second]
        assert reader.status(first) == Receipt(502, 0, finished=True)


def test_a_store_abandoned_at_any_moment_opens_with_everything_acknowledged(log_dir, tmp_path):
    """A copy of the directory between two acknowledgements, as a power cut would leave it, has all of the former."""
    experiment_id = new_id()
    events = whole(tensors=3)
    with opened(log_dir) as store:
        for offset, event in enumerate(events):
            (receipt,) = submit(store, batch(experiment_id, [event], offset))
            copy = tmp_path / f"copy{offset}"
            shutil.copytree(log_dir, copy)
            again = open_store(copy, CODEC)
            assert again.status(experiment_id) == receipt
            again.close()
