"""A check of the store finds each damage, where it is, and changes nothing."""

import errno
import json
import os
import sqlite3
from contextlib import closing

from qlog.v1 import collector_pb2 as wire

from collector.entry import main
from collector.lines import encode_line
from collector.names import INFLIGHT_NAME, LOG_NAME, META_NAME
from tests.collector.builders import batch, begin, log_lines, new_id, opened, record, serving, stats, submit


def check(client):
    """(kind, severity, number) of each finding, and the summary."""
    *found, last = client.stub.CheckStore(wire.CheckStoreRequest(), timeout=30)
    findings = [finding for response in found for finding in response.findings]
    return findings, last.summary


def test_a_whole_store_has_no_findings(log_dir):
    """Nothing to tell of lines, annotations and running experiments that are as they should be."""
    with serving(log_dir) as client:
        client.record()
        client.append(new_id(), [begin()])
        client.stub.AnnotateExperiment(wire.AnnotateExperimentRequest(ref="0", add_tags=["a"]), timeout=10)
        findings, summary = check(client)
    assert findings == []
    assert (summary.lines, summary.verified_lines, summary.meta_lines, summary.running) == (1, 1, 1, 1)


def test_each_damage_is_found_where_it_is(log_dir):
    """A changed byte, a second line of the same experiment, what was set aside; not a byte of the log is changed."""
    with serving(log_dir) as client:
        client.record()
        client.record()
    first, second = log_lines(log_dir)
    data = first + second.replace(b"COMPLETED", b"COMPLETEX") + first
    (log_dir / LOG_NAME).write_bytes(data + b'{"half')
    with serving(log_dir) as client:
        findings, summary = check(client)
    kinds = [(wire.FindingKind.Name(f.kind).removeprefix("FINDING_KIND_"), f.offset, f.number) for f in findings]
    assert kinds == [
        ("CORRUPT_LINE", len(first), 1),
        ("DUPLICATE_ID", len(first) + len(second), 2),
        ("FILE_SET_ASIDE", 0, 0),
    ]
    assert (summary.errors, summary.warnings, summary.notices) == (1, 1, 1)
    assert (log_dir / LOG_NAME).read_bytes() == data


def kinds_of(findings):
    """Kind and file of each."""
    return [(wire.FindingKind.Name(f.kind).removeprefix("FINDING_KIND_"), f.file) for f in findings]


def run_events(log_dir, *statements):
    """A store with an experiment of three batches that runs, and then what was done to its database; its id."""
    experiment_id = new_id()
    with opened(log_dir) as store:
        for place, event in enumerate([begin(), stats("a"), stats("b")]):
            submit(store, batch(experiment_id, [event], place))
    with closing(sqlite3.connect(log_dir / INFLIGHT_NAME)) as database, database:
        for statement in statements:
            database.execute(statement)
    return experiment_id


def test_missing_and_damaged_events_are_found_offline(log_dir, capsys):
    """A gap in what was stored, and bytes that are no events: told with the experiment; nothing is changed."""
    missing = run_events(log_dir, "DELETE FROM batches WHERE first_offset = 1")
    before = {file.name: file.read_bytes() for file in log_dir.iterdir()}
    assert main(["fsck", "--log_dir", str(log_dir), "--format", "json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)["findings"]
    assert (found["kind"], found["severity"], found["experiment_id"]) == ("MISSING_EVENTS", "ERROR", missing)
    assert "events 1 to 1 are missing" in found["message"]
    assert {file.name: file.read_bytes() for file in log_dir.iterdir()} == before
    for file in log_dir.glob(f"{INFLIGHT_NAME}*"):
        file.unlink()
    damaged = run_events(log_dir, "UPDATE batches SET payload = x'ff' WHERE first_offset = 2")
    assert main(["fsck", "--log_dir", str(log_dir)]) == 1
    shown = capsys.readouterr()
    assert f"ERROR DAMAGED_EVENTS {INFLIGHT_NAME}, experiment {damaged}: the events from 2 on" in shown.out
    assert shown.err.count("\n") == 1


def test_missing_events_are_found_while_served_and_sent_again(log_dir):
    """What stands behind a gap is not read, and removed at open, so that the sender's repetition fits."""
    experiment_id = run_events(log_dir, "DELETE FROM batches WHERE first_offset = 1")
    with serving(log_dir) as client:
        assert client.status(experiment_id).committed_offset == 1
        client.append(experiment_id, [stats("a"), stats("b"), stats("c")], offset=1)
        findings, summary = check(client)
        assert findings == []
        with closing(sqlite3.connect(log_dir / INFLIGHT_NAME)) as database, database:
            database.execute("DELETE FROM batches WHERE first_offset = 0")
        findings, summary = check(client)
        assert kinds_of(findings) == [("MISSING_EVENTS", INFLIGHT_NAME)]
    assert (summary.errors, summary.running) == (1, 1)


def test_a_database_that_is_none_is_found_offline(log_dir):
    """Of whatever bytes the file is."""
    with opened(log_dir) as store:
        record(store)
    for data in (b"no database" * 5000, b"SQLite format 3\0" + b"\7" * 9000):
        (log_dir / INFLIGHT_NAME).write_bytes(data)
        assert main(["fsck", "--log_dir", str(log_dir)]) == 1


def test_damage_of_what_is_said_is_found(log_dir):
    """A bad line, an amendment of nothing, a line of a kind that nobody knows, one about an experiment of elsewhere."""
    with opened(log_dir) as store:
        record(store)
        store.annotate(store.index().by_number(0), lambda said: type(said)(("a",)))
    path = log_dir / META_NAME
    (line,) = path.read_bytes().splitlines(keepends=True)
    elsewhere = {"number": 9, "experiment_id": new_id()}
    more = [
        line.replace(b'"a"', b'"b"'),
        encode_line({"kind": "amendment", "of": {"number": 0}}),
        encode_line({"kind": "hymn", "of": {"number": 0}}),
        encode_line({"kind": "annotation", "of": elsewhere, "tags": [], "note": "", "archived": True}),
    ]
    path.write_bytes(line + b"".join(more))
    with serving(log_dir) as client:
        findings, _ = check(client)
    kinds = [kind for kind, _ in kinds_of(findings)]
    assert kinds == ["CORRUPT_LINE", "CORRUPT_LINE", "ORPHAN_META", "ORPHAN_META"]
    assert [f.offset for f in findings] == [len(line) + sum(map(len, more[:place])) for place in range(4)]


def test_a_file_that_cannot_be_read_is_found(log_dir, monkeypatch):
    """EIO in the middle of a file: told, and the other files are read."""
    with serving(log_dir) as client:
        client.record()
        client.append(new_id(), [begin()])

        def failing(path, end):
            yield b""
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr("collector.fsck._chunks", failing)
        findings, summary = check(client)
    assert ("UNREADABLE_FILE", LOG_NAME) in kinds_of(findings)
    assert summary.running == 1


def test_half_a_line_is_told_of_and_left_where_it_is(log_dir, capsys):
    """Of the log and of what is said beside it, by one who only reads."""
    with opened(log_dir) as store:
        record(store)
        store.annotate(store.index().by_number(0), lambda said: type(said)(("a",)))
    for name in (LOG_NAME, META_NAME):
        with (log_dir / name).open("ab") as file:
            file.write(b'{"half')
    assert main(["fsck", "--log_dir", str(log_dir)]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in shown[:2]] == [["WARNING", "TORN_TAIL", n] for n in (LOG_NAME, META_NAME)]
    assert not list(log_dir.glob("*.torn-*"))


def test_a_sound_store_passes_while_it_is_served(log_dir, capsys):
    """Exit code 0, with what was read."""
    with serving(log_dir) as client:
        client.record()
        client.append(new_id(), [begin()])
        assert main(["--log_dir", str(log_dir), "fsck"]) == 0
    assert "lines 1, verified lines 1, meta lines 0, running 1" in capsys.readouterr().out
    assert main(["fsck", "--log_dir", str(log_dir / "nowhere")]) == 1
