"""A spool whose file is damaged, somebody else's, or gone: one trouble is told, and experiments are recorded."""

import os
import random
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from quantizer.spool import Spool
from quantizer.spool_commands import flush_spool
from tests.quantizer.fake_collector import FakeCollector
from tests.quantizer.test_spool import fill, open_spool

FILE = "spool.sqlite"


def use(directory: Path, troubles: list[str]) -> None:
    """What a run does with its spool: takes over what is there, records, reads back, closes."""
    spool = open_spool(directory, troubles)
    spool.adopt()
    experiment_id = fill(spool)
    assert [event.offset for event in spool.events(experiment_id, 1000)] == list(range(103))
    for held in spool.held():
        spool.events(held.row.id, 1000)
    assert spool.close() == []


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(4, 200))])
def test_damage_anywhere_is_no_trouble_for_a_run(tmp_path: Path, seed: int) -> None:
    """Cut anywhere, a page of noise or zeros anywhere, single bytes changed: told once, set aside, gone on."""
    spool = open_spool(tmp_path)
    for _ in range(3):
        fill(spool, 200)
    spool.close()
    chance, path = random.Random(seed), tmp_path / FILE
    content = bytearray(path.read_bytes())
    at = chance.randrange(len(content))
    match seed % 4:
        case 0:
            del content[at:]
        case 1:
            content[at : at + 4096] = chance.randbytes(min(4096, len(content) - at))
        case 2:
            page = at // 4096 * 4096
            content[page : page + 4096] = bytes(4096)
        case 3:
            for _ in range(20):
                content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    troubles: list[str] = []
    use(tmp_path, troubles)
    assert len(troubles) <= 1
    assert len(list(tmp_path.glob(f"{FILE}.damaged-*"))) == len(troubles)
    again: list[str] = []
    use(tmp_path, again)
    assert again == []


@pytest.mark.parametrize("statement", ["CREATE TABLE theirs (a)", "PRAGMA user_version = 1"])
def test_another_programs_database_is_set_aside_whole(tmp_path: Path, statement: str) -> None:
    """It is not written to, and what it holds is kept."""
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        database.execute(statement)
    before = (tmp_path / FILE).read_bytes()
    troubles: list[str] = []
    use(tmp_path, troubles)
    assert len(troubles) == 1
    (aside,) = [path for path in tmp_path.glob(f"{FILE}.damaged-*") if path.suffix not in ("-wal", "-shm")]
    assert len(aside.read_bytes()) == len(before)
    with closing(sqlite3.connect(aside)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_schema")}
    assert tables == ({"theirs"} if "theirs" in statement else set())


def test_processes_that_find_the_damage_together_share_the_new_file(tmp_path: Path) -> None:
    """One sets the file aside; none sets aside what another has begun."""
    (tmp_path / FILE).write_bytes(b"no database at all" * 1000)
    troubles: list[str] = []
    with ThreadPoolExecutor(8) as pool:
        spools = list(pool.map(lambda _: open_spool(tmp_path, troubles), range(8)))
    ids = [fill(spool, 3) for spool in spools]
    for spool in spools:
        spool.close()
    assert len(troubles) == 1
    after = open_spool(tmp_path)
    assert {row.id for row in after.adopt()} == set(ids)
    after.close()


def overwrite(path: Path) -> None:
    """What a failing disk does to a file that is in use."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(descriptor, b"\xa5" * (path.stat().st_size - 100), 100)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("ended", [False, True])
def test_damage_while_an_experiment_runs_costs_events_and_not_the_experiment(tmp_path: Path, ended: bool) -> None:
    """It goes on from memory with its begin, and its end; offsets stay; what the disk lost is counted."""
    troubles: list[str] = []
    spool = open_spool(tmp_path, troubles)
    experiment_id = fill(spool, 400, ended=ended)
    spool.acknowledge(experiment_id, 100)
    with closing(sqlite3.connect(tmp_path / FILE)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    overwrite(tmp_path / FILE)
    assert spool._disk is not None
    spool._disk._db.execute("PRAGMA shrink_memory")  # What SQLite has in memory is not read from disk.
    events = spool.events(experiment_id, 1000)
    assert spool.in_memory
    assert len(troubles) == 1
    assert [event.offset for event in events] == list(range(100, 402 + ended))
    assert spool.lost(experiment_id) == {"unknown": 302}
    assert (events[-1].kind == "finish") == ended
    spool.acknowledge(experiment_id, 0)
    assert spool.events(experiment_id, 1)[0].kind == "begin"
    assert spool.close() == []
    after = open_spool(tmp_path)
    assert [row.next_offset for row in after.adopt()] == [402 + ended]
    after.close()


@pytest.mark.parametrize("whole", [False, True])
def test_a_spool_that_is_removed_while_it_is_used_is_written_again(tmp_path: Path, whole: bool) -> None:
    """By a tidy user, the file or the directory with it: nothing is lost."""
    directory = tmp_path / "spool"
    spool = open_spool(directory)
    experiment_id = fill(spool, 10, ended=False)
    for path in directory.iterdir() if whole else directory.glob(f"{FILE}*"):
        path.unlink()
    if whole:
        directory.rmdir()
    spool.append([(experiment_id, "layer_stats", b"")])
    assert spool.close() == []
    after = open_spool(directory)
    assert [row.id for row in after.adopt()] == [experiment_id]
    assert len(after.events(experiment_id, 100)) == 13
    after.close()


def test_an_id_that_would_lead_out_of_the_spool_is_left_alone(tmp_path: Path) -> None:
    """Ids become names of files: what is no id never does, whoever wrote it there."""
    directory = tmp_path / "logs" / "spool"
    spool = open_spool(directory)
    fill(spool, 1)
    spool.close()
    with closing(sqlite3.connect(directory / FILE, isolation_level=None)) as database:
        database.execute("UPDATE experiments SET id = '../../out'")
    again: Spool = open_spool(directory)
    assert again.adopt() == []
    again.close()
    with FakeCollector() as collector:
        flush_spool(tmp_path / "logs", collector.address)
        assert collector.store == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs"]
