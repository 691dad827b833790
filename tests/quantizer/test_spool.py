"""The spool: what it keeps, what it gives up, and what it does on a disk that is full, damaged or not its own."""

import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantizer.errors import SpoolError
from quantizer.spool import Spool
from quantizer.wire import spool_entry
from quantizer.wire_batches import FILLER, batches_of
from tests.quantizer.builders import began, finished, measured, progressed

TARGET = "127.0.0.1:1"


def open_spool(directory: Path, troubles: list[str] | None = None, **options: int) -> Spool:
    return Spool(directory, on_trouble=pytest.fail if troubles is None else troubles.append, **options)


def fill(spool: Spool, tensors: int = 100, *, ended: bool = True) -> str:
    event = began()
    spool.begin(event.experiment_id, TARGET, *spool_entry(event))
    spool.append([(event.experiment_id, *spool_entry(progressed()))])
    spool.append([(event.experiment_id, *spool_entry(measured(index))) for index in range(tensors)])
    if ended:
        spool.append([(event.experiment_id, *spool_entry(finished()))])
    return event.experiment_id


def test_what_is_appended_is_read_back_at_contiguous_offsets(tmp_path: Path) -> None:
    """Offsets count from 0 without a gap, also after the file was closed and opened again."""
    spool = open_spool(tmp_path)
    experiment_id = fill(spool)
    spool.close()
    again = open_spool(tmp_path)
    assert [row.id for row in again.adopt()] == [experiment_id]
    events = again.events(experiment_id, 1000)
    assert [event.offset for event in events] == list(range(103))
    assert [event.kind for event in events] == ["begin", "progress", *["layer_stats"] * 100, "finish"]
    again.close()


def test_acknowledged_events_are_not_read_again_but_kept(tmp_path: Path) -> None:
    """Reading goes on at the committed offset; when the collector falls back behind it, so does the reading."""
    spool = open_spool(tmp_path)
    experiment_id = fill(spool)
    spool.acknowledge(experiment_id, 50)
    assert spool.events(experiment_id, 1000)[0].offset == 50
    spool.acknowledge(experiment_id, 0)
    assert spool.events(experiment_id, 1000)[0].kind == "begin"
    spool.close()


def test_over_the_cap_statistics_of_the_oldest_go_and_never_begin_or_finish(tmp_path: Path) -> None:
    """What is given up keeps its offset, and is counted by kind."""
    spool = open_spool(tmp_path, cap_bytes=20_000)
    oldest, newest = fill(spool), fill(spool)
    events = spool.events(oldest, 1000)
    assert [event.offset for event in events] == list(range(103))
    assert events[0].payload is not None
    assert events[-1].payload is not None
    given_up = [event for event in events if event.payload is None]
    assert {event.kind for event in given_up} == {"progress", "layer_stats"}
    assert spool.lost(oldest) == {"progress": 1, "layer_stats": len(given_up) - 1}
    assert spool.events(newest, 1000)[-2].payload is not None
    spool.close()


def test_acknowledged_events_go_first_and_are_no_loss(tmp_path: Path) -> None:
    """Giving up what the collector has loses nothing, unless the collector loses it later."""
    spool = open_spool(tmp_path, cap_bytes=70_000)
    first = fill(spool, ended=False)
    spool.acknowledge(first, 102)
    fill(spool, 200)
    assert any(event.payload is None for event in spool._tables.events(first, 0, 1000))
    assert spool.lost(first) == {}
    spool.acknowledge(first, 0)
    assert spool.lost(first)["layer_stats"] > 0
    spool.close()


def test_losses_are_told_in_the_finish_that_is_sent(tmp_path: Path) -> None:
    """The record's `dropped` counts what the spool gave up, beside what was lost before it."""
    spool = open_spool(tmp_path, cap_bytes=10_000)
    event = began()
    spool.begin(event.experiment_id, TARGET, *spool_entry(event))
    spool.append([(event.experiment_id, *spool_entry(measured(index))) for index in range(100)])
    spool.append([(event.experiment_id, *spool_entry(finished(), {"layer_stats": 5, "progress": 1}))])
    events = spool.events(event.experiment_id, 1000)
    sent = [message for batch in batches_of(events, spool.lost(event.experiment_id)) for message in batch.events]
    lost = sum(message == FILLER for message in sent)
    assert lost > 0
    assert {entry.kind: entry.count for entry in sent[-1].finish.dropped} == {"layer_stats": lost + 5, "progress": 1}
    spool.close()


def test_batches_cover_all_offsets_and_are_bounded(tmp_path: Path) -> None:
    """No message has more than 256 events; together they are all events at their offsets."""
    spool = open_spool(tmp_path)
    experiment_id = fill(spool, 1000)
    batches = batches_of(spool.events(experiment_id, 5000), {})
    covered = [batch.offset + index for batch in batches for index in range(len(batch.events))]
    assert covered == list(range(1003))
    assert max(len(batch.events) for batch in batches) == 256
    spool.close()


def test_a_full_disk_moves_the_experiment_to_memory(tmp_path: Path) -> None:
    """The events before and after are all there, and there is one trouble to tell."""
    troubles: list[str] = []
    spool = open_spool(tmp_path, troubles)
    assert spool._disk is not None
    event = began()
    spool.begin(event.experiment_id, TARGET, *spool_entry(event))
    pages = spool._disk._db.execute("PRAGMA page_count").fetchone()[0]
    spool._disk._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    for index in range(100):
        spool.append([(event.experiment_id, *spool_entry(measured(index)))])
    assert spool.in_memory
    assert [found.offset for found in spool.events(event.experiment_id, 1000)] == list(range(101))
    assert len(troubles) == 1
    spool._disk._db.execute("PRAGMA max_page_count = 1000000")  # There is room again.
    spool.close()
    again = open_spool(tmp_path)
    again.adopt()
    assert len(again.events(event.experiment_id, 1000)) == 101
    again.close()


def test_a_spool_that_is_closed_warns_of_nothing(tmp_path: Path) -> None:
    """A sender that comes too late is not taken for a disk that fails."""
    spool = open_spool(tmp_path)
    fill(spool, 1)
    spool.close()
    with pytest.raises(sqlite3.ProgrammingError):
        spool.held()


def test_a_damaged_spool_is_set_aside(tmp_path: Path) -> None:
    """Garbage in place of the file costs a warning, not the experiment; the garbage is kept."""
    (tmp_path / "spool.sqlite").write_bytes(b"no database at all" * 1000)
    troubles: list[str] = []
    spool = open_spool(tmp_path, troubles)
    assert len(spool.events(fill(spool), 1000)) == 103
    spool.close()
    assert len(troubles) == 1
    assert len(list(tmp_path.glob("spool.sqlite.damaged-*"))) == 1


def test_a_spool_of_a_newer_version_is_not_touched(tmp_path: Path) -> None:
    """A format that is not known is refused with one line."""
    path = tmp_path / "spool.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    before = path.read_bytes()
    with pytest.raises(SpoolError, match="newer version"):
        open_spool(tmp_path)
    assert path.read_bytes() == before


def test_a_place_that_cannot_be_a_directory_is_an_error(tmp_path: Path) -> None:
    """A log directory below a file is the user's mistake, told in one line."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match="--log_dir"):
        open_spool(tmp_path / "file" / "spool")


def test_a_held_experiment_is_nobody_elses(tmp_path: Path) -> None:
    """Two spools on one directory never hold the same experiment; one that is closed lets go."""
    first, second = open_spool(tmp_path), open_spool(tmp_path)
    experiment_id = fill(first)
    assert second.adopt() == []
    first.close()
    assert [row.id for row in second.adopt()] == [experiment_id]
    assert [held.orphan for held in second.held()] == [True]
    second.remove(experiment_id)
    assert second.experiments() == []
    second.close()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.sampled_from(["append", "acknowledge"]), st.integers(0, 40)), max_size=30))
def test_whatever_is_acknowledged_and_shed_offsets_stay_contiguous(
    tmp_path: Path, steps: list[tuple[str, int]]
) -> None:
    """From the committed offset to the end there is always exactly one event an offset, and begin never goes."""
    spool = open_spool(tmp_path, cap_bytes=5_000)
    event = began()
    spool.begin(event.experiment_id, TARGET, *spool_entry(event))
    total = 1
    for step, number in steps:
        if step == "append":
            spool.append([(event.experiment_id, *spool_entry(measured(index))) for index in range(number)])
            total += number
        else:
            spool.acknowledge(event.experiment_id, min(number, total))
    row = spool.held()[0].row
    assert row.next_offset == total
    offsets = [found.offset for found in spool.events(event.experiment_id, 10_000)]
    assert offsets == list(range(row.acknowledged, total))
    spool.acknowledge(event.experiment_id, 0)
    assert spool.events(event.experiment_id, 1)[0].payload is not None
    stored = sum(len(found.payload or b"") for found in spool.events(event.experiment_id, 10_000))
    assert row.bytes == stored + 64 * total
    spool.remove(event.experiment_id)
    spool.close()
