"""Import, annotations, checks and backups: what is asked of a collector, and what becomes of its answers."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from qlog.v1 import collector_pb2 as wire

from client.checks import finding_from
from tests.client import builders
from tests.client.conftest import Ran
from tests.client.fakes import FakeCollector

Qlog = Callable[..., Ran]
LOG, META = "percentile_experiments.jsonl", "percentile_experiments.meta.jsonl"


def test_an_import_sends_the_file_as_it_is(qlog: Qlog, collector: FakeCollector, tmp_path: Path) -> None:
    """Every byte once, in pieces; a last line without its newline gets one; the counts are told."""
    collector.import_answer = wire.ImportExperimentsResponse(imported=2, already_present=1)
    for content in (b"{}\n" * 300_000, b"{}", b"", b"{}\r\n\0"):
        collector.imported = b""
        (tmp_path / "file").write_bytes(content)
        ran = qlog("import", str(tmp_path / "file"), "--collector", collector.endpoint, "--format", "json")
        assert (ran.code, ran.err) == (0, "")
        assert json.loads(ran.out) == {"imported": 2, "already_present": 1, "rejected": 0, "reasons": []}
        assert collector.imported == (content if content.endswith(b"\n") or not content else content + b"\n")


def test_rejected_lines_fail_an_import(qlog: Qlog, collector: FakeCollector, tmp_path: Path) -> None:
    """With the counts on the standard output, and each reason with its line on the standard error."""
    rejections = [wire.ImportRejection(line=3, reason="no JSON\x1b[2J")]
    collector.import_answer = wire.ImportExperimentsResponse(imported=4, rejected=1, rejections=rejections)
    (tmp_path / "file").write_text("x\n")
    ran = qlog("import", str(tmp_path / "file"), "--collector", collector.endpoint)
    assert ran.code == 1
    assert [line.split() for line in ran.out.splitlines()] == [
        ["imported", "4"],
        ["already", "present", "0"],
        ["rejected", "1"],
    ]
    first, second = ran.err.splitlines()
    assert first == "qlog: line 3: no JSON\\x1b[2J"
    assert "1 line was rejected" in second


def test_what_cannot_be_imported(qlog: Qlog, collector: FakeCollector, tmp_path: Path) -> None:
    """A file that is not there, a directory, a collector that refuses: one line, exit code 1."""
    (tmp_path / "file").write_text("{}\n")
    for file in ("nothing", "."):
        ran = qlog("import", str(tmp_path / file), "--collector", collector.endpoint)
        assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
        assert "cannot read" in ran.err
    ran = qlog("import", str(tmp_path / "file"), "--collector", "127.0.0.1:1", "--timeout", "5")
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)


def test_tags_notes_and_archive_marks(qlog: Qlog, collector: FakeCollector) -> None:
    """What was said is asked for and shown: by annotate, list and show, and in a column where any has tags."""
    where = ["--collector", collector.endpoint]
    assert "tags" not in qlog("list", *where).out
    ran = qlog("annotate", "0", "4", "--tag", "good", "--tag", "für dich", "--note", "why\nnot", "--archive", *where)
    assert (ran.code, ran.err) == (0, "")
    assert [line.split()[0] for line in ran.out.splitlines()] == ["#", "0", "4"]
    assert "good, für dich  why\\nnot  yes" in ran.out
    request = next(request for request in collector.requests if isinstance(request, wire.AnnotateExperimentRequest))
    assert (request.ref, list(request.add_tags), request.note, request.archived) == (
        *("0", ["good", "für dich"]),
        *("why\nnot", True),
    )
    table = qlog("list", *where).out.splitlines()
    assert table[0].endswith("tags")
    assert table[1].endswith("good, für dich")
    entries = json.loads(qlog("list", *where, "--format", "json").out)
    assert (entries[0]["tags"], entries[0]["note"], entries[0]["archived"]) == (["good", "für dich"], "why\nnot", True)
    assert "tags" not in entries[1]
    shown = qlog("show", "0", *where).out
    assert "good, für dich" in shown
    assert json.loads(qlog("show", "0", *where, "--format", "json").out)["note"] == "why\nnot"
    assert qlog("annotate", "0", "--untag", "good", "--note", "", *where, "--unarchive").code == 0
    rows = list(csv.DictReader(io.StringIO(qlog("export", "--format", "csv", *where).out)))
    assert (rows[0]["tags"], rows[0]["note"], rows[0]["archived"]) == ('["für dich"]', "", "")
    assert rows[4]["archived"] == "true"


@pytest.mark.parametrize(
    "options", [[], ["--tag", " "], ["--tag", "a", "--untag", "a"], ["--not", "x"], ["--archive", "--notes", "x"]]
)
def test_an_annotation_that_says_nothing(qlog: Qlog, options: list[str]) -> None:
    """Wrong usage in one line, before anything is asked."""
    ran = qlog("annotate", "0", *options, "--collector", "127.0.0.1:1")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)


def finding(severity: int, **more: object) -> wire.Finding:
    return wire.Finding(kind=wire.FINDING_KIND_CORRUPT_LINE, severity=severity, file=LOG, message="bad", **more)


def test_a_check_without_damage(qlog: Qlog, collector: FakeCollector) -> None:
    """Notices are no damage."""
    where = ["fsck", "--collector", collector.endpoint]
    collector.check = [wire.CheckStoreResponse(summary=wire.CheckSummary(lines=5, verified_lines=4))]
    ran = qlog(*where)
    assert (ran.code, ran.err) == (0, "")
    assert "no damage" in ran.out
    collector.check.insert(0, wire.CheckStoreResponse(findings=[finding(wire.FINDING_SEVERITY_NOTICE)]))
    report = json.loads(qlog(*where, "--format", "json").out)
    assert (report["damaged"], report["lines"], report["verified_lines"]) == (False, 5, 4)
    assert report["findings"][0]["severity"] == "notice"


def test_damage_fails_a_check(qlog: Qlog, collector: FakeCollector) -> None:
    """By kind, with file, offset and number, 0 too; over several messages."""
    collector.check = [
        wire.CheckStoreResponse(findings=[finding(wire.FINDING_SEVERITY_ERROR, offset=0, number=0)]),
        wire.CheckStoreResponse(findings=[finding(wire.FINDING_SEVERITY_WARNING)], summary=wire.CheckSummary(lines=1)),
    ]
    ran = qlog("fsck", "--collector", collector.endpoint)
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "2 findings" in ran.err
    [row] = [line for line in ran.out.splitlines() if line.startswith("error")]
    assert row.split() == ["error", "corrupt_line", LOG, "0", "0", "-", "bad"]
    rows = list(csv.DictReader(io.StringIO(qlog("fsck", "--collector", collector.endpoint, "--format", "csv").out)))
    assert [(row["severity"], row["offset"]) for row in rows] == [("error", "0"), ("warning", "")]


def test_every_kind_of_finding_has_its_word() -> None:
    """And what this version does not know is damage."""
    kinds = wire.FindingKind.values()
    words = {finding_from(wire.Finding(kind=kind)).kind for kind in kinds}
    assert len(words) == len(kinds)
    assert "torn_tail" in words
    unknown = finding_from(wire.Finding(kind=99, severity=99))
    assert (unknown.kind, unknown.severity) == ("99", "error")


def chunk(file: str, offset: int, data: bytes, size: int) -> wire.BackupStoreResponse:
    return wire.BackupStoreResponse(file=file, offset=offset, chunk=data, size_bytes=size)


def test_a_backup_is_the_stores_files(qlog: Qlog, collector: FakeCollector, tmp_path: Path) -> None:
    """Byte by byte, in a new directory or an empty one; an empty file too."""
    collector.backup = [chunk(LOG, 0, b"one", 6), chunk(LOG, 3, b"two", 6), chunk(META, 0, b"", 0)]
    (tmp_path / "empty").mkdir()
    for place in ("new", "empty"):
        ran = qlog("backup", str(tmp_path / place), "--collector", collector.endpoint, "--format", "json")
        assert (ran.code, ran.err) == (0, "")
        assert json.loads(ran.out)["files"][0] == {"file": LOG, "size_bytes": 6}
        assert {path.name: path.read_bytes() for path in (tmp_path / place).iterdir()} == {LOG: b"onetwo", META: b""}
    assert {path.name for path in tmp_path.iterdir()} == {"new", "empty"}


def test_a_backup_overwrites_nothing(qlog: Qlog, collector: FakeCollector, tmp_path: Path) -> None:
    """A file, a directory with something in it, a link that leads nowhere."""
    (tmp_path / "file").write_text("kept")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("kept")
    collector.backup = [chunk(LOG, 0, b"", 0)]
    for place in ("file", "full"):
        ran = qlog("backup", str(tmp_path / place), "--collector", collector.endpoint)
        assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
        assert "overwrites nothing" in ran.err
    assert (tmp_path / "file").read_text() == (tmp_path / "full" / "file").read_text() == "kept"


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(LOG, 0, b"one", 6)],
        [chunk(LOG, 3, b"two", 6)],
        [chunk(LOG, 0, b"", 0), chunk(META, 0, b"", 0), chunk(LOG, 0, b"", 0)],
        [chunk("../outside", 0, b"", 0)],
        [chunk("", 0, b"", 0)],
    ],
)
def test_half_a_backup_is_none(
    qlog: Qlog, collector: FakeCollector, tmp_path: Path, chunks: list[wire.BackupStoreResponse]
) -> None:
    """A copy that is short, has a gap, is out of order or leads elsewhere fails, and leaves nothing."""
    collector.backup = chunks
    ran = qlog("backup", str(tmp_path / "copy"), "--collector", collector.endpoint)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert list(tmp_path.iterdir()) == []


def test_names_of_experiments_in_annotations(qlog: Qlog, collector: FakeCollector) -> None:
    """A damaged line has none, and is listed without tags."""
    collector.experiments = [builders.corrupt(0), builders.experiment(1, tags=["a"])]
    lines = qlog("list", "--collector", collector.endpoint).out.splitlines()
    assert lines[1].endswith("-")
    assert lines[2].endswith("a")
