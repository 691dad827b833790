"""Import, annotations, checks, backups and exports, through real collectors: embedded, a server, one with TLS."""

import contextlib
import csv
import io
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from qlog.v1 import collector_pb2, collector_pb2_grpc
from qlog.v1 import common_pb2 as pb
from qlog.v1.channels import secured_channel
from qlog.v1.credentials import Credentials

from collector.embedded import open_local
from tests.client import builders
from tests.client.conftest import Ran, started
from tests.client.test_local import EARLIER, append
from tests.processes import serving
from tests.secured import secured

Qlog = Callable[..., Ran]
LOG, META = "percentile_experiments.jsonl", "percentile_experiments.meta.jsonl"
RUNS = [f"0199ffff-{index:04x}-7c11-9a52-3f1c8d0e4b67" for index in range(40)]
Where = tuple[Path, list[str]]
KINDS = ["local", "server", "secured"]


def send(where: list[str], name: str, events: list[pb.Event], offset: int = 0) -> None:
    """Append events where these options lead; a local store is opened for it as a run does."""
    options = dict(zip(where[::2], where[1::2], strict=True))
    with contextlib.ExitStack() as stack:
        if "--log_dir" in options:
            append(stack.enter_context(open_local(Path(options["--log_dir"]))).endpoint, events, offset, name)
            return
        known = Credentials(tls_ca=options.get("--tls_ca"), token_file=options.get("--token_file"))
        channel = stack.enter_context(secured_channel(options["--collector"], known, ()))
        request = collector_pb2.AppendExperimentRequest(experiment_id=name, offset=offset, events=events)
        stub = collector_pb2_grpc.CollectorServiceStub(channel)
        responses = list(stub.AppendExperiment(iter([request]), timeout=20))
    assert responses[-1].committed_offset == offset + len(events)


def fill(log_dir: Path, names: list[str]) -> None:
    """A store of experiments that have ended."""
    with open_local(log_dir) as local:
        for name in names:
            append(local.endpoint, builders.run_events(), experiment_id=name)


@contextlib.contextmanager
def served(log_dir: Path, kind: str) -> Iterator[list[str]]:
    """The options that name a store: by its directory, or by a server of it in a process of its own."""
    if kind == "local":
        yield ["--log_dir", str(log_dir)]
        return
    words = ["collector.entry", "serve", "--port", "0", "--log_dir", str(log_dir)]
    if kind == "server":
        with serving(*words) as (_, endpoint):
            yield ["--collector", endpoint]
        return
    files = secured(log_dir.with_name("secrets"))
    with serving(*words, *files.server) as (_, endpoint):
        yield ["--collector", endpoint, *files.client("admin")]


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Where]:
    """Three experiments, the directory that they are in, and the options that name it."""
    log_dir = tmp_path / "store"
    fill(log_dir, RUNS[:3])
    with served(log_dir, request.param) as where:
        yield log_dir, where


def ok(ran: Ran) -> str:
    assert (ran.code, ran.err) == (0, "")
    return ran.out


def written(ran: Ran, path: Path) -> Path:
    """The file that an export wrote; it says so."""
    assert (ran.code, ran.out, ran.err.count("\n")) == (0, "", 1)
    assert str(path) in ran.err
    return path


def listed(qlog: Qlog, where: list[str], *more: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(ok(qlog("list", *where, "--format", "json", *more)))
    return entries


def test_what_is_said_of_experiments_is_shown_everywhere(qlog: Qlog, store: Where) -> None:
    """Tags, a note and the archive mark: kept beside the log, shown, listed, filtered by, exported, taken back."""
    log_dir, where = store
    before = (log_dir / LOG).read_bytes()
    said = qlog("annotate", "0", RUNS[2][:13], "--tag", "good", "--tag", "für dich", "--note", "a\nb", *where)
    assert [line.split()[0] for line in ok(said).splitlines()[1:]] == ["0", "2"]
    ok(qlog("annotate", "-1", "--archive", *where))
    assert (log_dir / LOG).read_bytes() == before
    first, second, third = listed(qlog, where)
    assert (sorted(first["tags"]), first["note"], "archived" in first) == (["für dich", "good"], "a\nb", False)
    assert not {"tags", "note", "archived"} & set(second)
    assert third["archived"] is True
    record = json.loads(ok(qlog("show", "2", *where, "--format", "json")))
    assert (sorted(record["tags"]), record["note"], record["archived"]) == (["für dich", "good"], "a\nb", True)
    assert "für dich" in ok(qlog("show", "0", *where))
    found = [entry["number"] for entry in listed(qlog, where, "--filter", "tags:good AND NOT archived = true")]
    assert found == [0]
    rows = list(csv.DictReader(io.StringIO(ok(qlog("export", "--format", "csv", *where)))))
    assert [row["note"] for row in rows] == ["a\nb", "", "a\nb"]
    ok(qlog("annotate", "0", "2", "--untag", "good", "--untag", "für dich", "--note", "", "--unarchive", *where))
    assert not any({"tags", "note", "archived"} & set(entry) for entry in listed(qlog, where))


@pytest.mark.parametrize("store", ["local"], indirect=True)
@pytest.mark.parametrize("tag", ["x" * 1000, "a\nb"])
def test_a_tag_that_is_none(qlog: Qlog, store: Where, tag: str) -> None:
    """The collector's refusal is one line, and nothing is changed."""
    ran = qlog("annotate", "0", "--tag", tag, *store[1])
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "tag" in ran.err
    assert not (store[0] / META).exists() or not (store[0] / META).read_bytes()


def test_an_import_may_be_repeated(qlog: Qlog, store: Where, tmp_path: Path) -> None:
    """Lines of the earlier logger and of another store, byte by byte; the second time all are there already."""
    log_dir, where = store
    fill(tmp_path / "other", RUNS[2:6])
    legacy = [json.dumps({**EARLIER, "results": {"accuracy": value, "perplexity": "NaN"}}) for value in (0.5, 0.6)]
    lines = [*legacy, *(tmp_path / "other" / LOG).read_text().splitlines()]
    (tmp_path / "file").write_text("\n".join(lines))
    words = ["import", str(tmp_path / "file"), *where, "--format", "json"]
    assert json.loads(ok(qlog(*words))) == {"imported": 5, "already_present": 1, "rejected": 0, "reasons": []}
    assert json.loads(ok(qlog(*words))) == {"imported": 0, "already_present": 6, "rejected": 0, "reasons": []}
    kept = (log_dir / LOG).read_text().splitlines()
    assert kept[3:] == [*legacy, *lines[3:]]
    assert [entry["number"] for entry in listed(qlog, where)] == list(range(8))
    (tmp_path / "file").write_text(f"{legacy[0]}\nno JSON\n[1]\n")
    ran = qlog(*words)
    assert ran.code == 1
    assert {name: json.loads(ran.out)[name] for name in ("imported", "already_present", "rejected")} == {
        "imported": 0,
        "already_present": 1,
        "rejected": 2,
    }
    assert ["line 2" in ran.err, "line 3" in ran.err, "2 lines were rejected" in ran.err] == [True] * 3
    assert "no damage" in ok(qlog("fsck", *where))


def test_an_import_makes_a_store(qlog: Qlog, tmp_path: Path) -> None:
    """In a directory that is not there yet."""
    (tmp_path / "file").write_text(json.dumps(EARLIER))
    ok(qlog("import", str(tmp_path / "file"), "--log_dir", str(tmp_path / "new")))
    assert len(listed(qlog, ["--log_dir", str(tmp_path / "new")])) == 1


def test_an_export_is_imported_elsewhere(qlog: Qlog, store: Where, tmp_path: Path) -> None:
    """jsonl is the log byte by byte, or the lines of it that match; csv and parquet have the same rows."""
    log_dir, where = store
    copy = tmp_path / "copy.jsonl"
    written(qlog("export", *where, "--output", str(copy)), copy)
    assert copy.read_bytes() == (log_dir / LOG).read_bytes()
    ok(qlog("import", str(copy), "--log_dir", str(tmp_path / "copy")))
    assert (tmp_path / "copy" / LOG).read_bytes() == (log_dir / LOG).read_bytes()
    one = ok(qlog("export", *where, "--filter", f'experiment_id = "{RUNS[1]}"'))
    assert one.splitlines() == (log_dir / LOG).read_text().splitlines()[1:2]
    for stats in ([], ["--stats"]):
        text, typed = tmp_path / "table.csv", tmp_path / "table.parquet"
        with written(qlog("export", *where, *stats, "--output", str(text)), text).open(newline="") as file:
            rows = list(csv.DictReader(file))
        table = parquet.read_table(written(qlog("export", *where, *stats, "--output", str(typed)), typed))
        assert table.column_names == list(rows[0])
        assert table["experiment_id"].to_pylist() == [row["experiment_id"] for row in rows]
        assert {row["experiment_id"] for row in rows} == set(RUNS[:3])


def test_a_backup_of_a_store_that_is_written_to(qlog: Qlog, store: Where, tmp_path: Path) -> None:
    """A prefix of the log in whole lines, with what was said of it, while others append; a store like any other."""
    log_dir, where = store
    ok(qlog("annotate", "1", "--tag", "kept", *where))
    over = threading.Event()

    def write() -> None:
        for name in RUNS[3:]:
            send(where, name, builders.run_events())
            if over.is_set():
                return

    with contextlib.ExitStack() as stack:
        if where[0] == "--log_dir":  # Held all the time, as a run does.
            stack.enter_context(open_local(log_dir))
        writer = threading.Thread(target=write)
        writer.start()
        try:
            for place in ("first", "second"):
                ok(qlog("backup", str(tmp_path / place), *where))
        finally:
            over.set()
            writer.join()
    log = (log_dir / LOG).read_bytes()
    for place in ("first", "second"):
        copy = tmp_path / place
        assert log.startswith((copy / LOG).read_bytes())
        entries = listed(qlog, ["--log_dir", str(copy)])
        assert [entry["experiment_id"] for entry in entries[:3]] == RUNS[:3]
        assert entries[1]["tags"] == ["kept"]
        assert json.loads(ok(qlog("fsck", "--log_dir", str(copy), "--format", "json")))["findings"] == []
        ran = qlog("backup", str(copy), *where)
        assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    # It is not only read.
    fill(tmp_path / "second", ["0199ffff-ffff-7c11-9a52-3f1c8d0e4b67"])
    assert len(listed(qlog, ["--log_dir", str(tmp_path / "second")])) == len(entries) + 1


@pytest.mark.parametrize("kind", KINDS[:2])
@pytest.mark.parametrize("name", [LOG, META])
def test_a_flipped_byte_is_found(qlog: Qlog, tmp_path: Path, kind: str, name: str) -> None:
    """With its file, its line and where that begins; what can be read is served, and nothing is changed by looking."""
    log_dir = tmp_path / "store"
    fill(log_dir, RUNS[:3])
    for number in ("0", "1", "2"):
        ok(qlog("annotate", number, "--tag", "t", "--log_dir", str(log_dir)))
    assert "no damage" in ok(qlog("fsck", "--log_dir", str(log_dir)))
    for index in log_dir.glob("*index*"):
        index.unlink() if index.is_file() else shutil.rmtree(index)
    content = bytearray((log_dir / name).read_bytes())
    start = content.index(b"\n") + 1
    content[start + 30] ^= 1
    (log_dir / name).write_bytes(content)
    with served(log_dir, kind) as where:
        ran = qlog("fsck", *where, "--format", "json")
        assert (ran.code, ran.err.count("\n")) == (1, 1)
        [finding] = [found for found in json.loads(ran.out)["findings"] if found["severity"] == "error"]
        assert (finding["kind"], finding["file"], finding["offset"]) == ("corrupt_line", name, start)
        assert finding["number"] == (1 if name == LOG else None)
        assert "damaged" in qlog("fsck", *where).err
        assert [entry["number"] for entry in listed(qlog, where)] == [0, 1, 2]
        assert [entry.get("tags") for entry in listed(qlog, where)] == [["t"], None, ["t"]]
    assert (log_dir / name).read_bytes() == content


def test_a_running_experiment_is_checked_too(qlog: Qlog, store: Where) -> None:
    """Its events are counted, and are no finding; what is said of it stays when it ends."""
    where = store[1]
    send(where, RUNS[9], builders.run_events()[:4])
    report = json.loads(ok(qlog("fsck", *where, "--format", "json")))
    assert (report["running"], report["lines"], report["findings"]) == (1, 3, [])
    ok(qlog("annotate", RUNS[9], "--tag", "x", *where))
    send(where, RUNS[9], builders.run_events()[4:], offset=4)
    assert listed(qlog, where)[-1]["tags"] == ["x"]


def test_tags_travel_with_an_export_as_shown(qlog: Qlog, store: Where, tmp_path: Path) -> None:
    """Imported, what was exported so has its tags again."""
    where, copy = store[1], tmp_path / "copy.jsonl"
    ok(qlog("annotate", "1", "--tag", "kept", "--note", "why", "--archive", *where))
    written(qlog("export", *where, "--as_shown", "--output", str(copy)), copy)
    for count in (3, 0):
        ran = qlog("import", str(copy), "--log_dir", str(tmp_path / "copy"), "--format", "json")
        assert json.loads(ok(ran))["imported"] == count
    entries = listed(qlog, ["--log_dir", str(tmp_path / "copy")])
    assert (entries[1]["tags"], entries[1]["note"], entries[1]["archived"]) == (["kept"], "why", True)
    assert "no damage" in ok(qlog("fsck", "--log_dir", str(tmp_path / "copy")))
    assert qlog("export", *where, "--as_shown", "--format", "csv").code == 2


@pytest.mark.parametrize("verb", ["annotate", "import", "backup", "fsck"])
def test_care_is_for_administrators(qlog: Qlog, tmp_path: Path, verb: str) -> None:
    """A reader is refused in one line which says what role it takes; nothing is left behind."""
    fill(tmp_path / "store", RUNS[:1])
    files = secured(tmp_path / "secrets")
    (tmp_path / "file").write_text(json.dumps(EARLIER))
    what = {"annotate": ["0", "--tag", "x"], "import": [str(tmp_path / "file")], "backup": [str(tmp_path / "copy")]}
    words = ["collector.entry", "serve", "--port", "0", "--log_dir", str(tmp_path / "store"), *files.server]
    with serving(*words) as (_, endpoint):
        where = ["--collector", endpoint]
        ran = qlog(verb, *what.get(verb, []), *where, *files.client("reader"))
        assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
        assert "admin" in ran.err
        assert len(listed(qlog, [*where, *files.client("reader")])) == 1
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("verb", ["list", "backup", "watch"])
def test_what_is_wrong_with_a_connection(tmp_path: Path, verb: str) -> None:
    """One line says that a server may want TLS, that it is not trusted, or that nobody is there: no word of gRPC's."""
    files, other = secured(tmp_path / "secrets"), secured(tmp_path / "others")
    words = [verb, *([str(tmp_path / "copy")] if verb == "backup" else [])]

    def told(*options: str) -> str:
        with started(*words, *options) as process:
            out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err.count("\n")) == (1, "", 1), err
        return err

    serve = ["collector.entry", "serve", "--port", "0", "--log_dir", str(tmp_path / "store"), *files.server]
    with serving(*serve) as (_, endpoint):
        assert "wants TLS, give --tls_ca" in told("--collector", endpoint)
        assert "certificate verify failed" in told("--collector", endpoint, "--tls_ca", other.ca)
    assert "`collector serve`" in told("--collector", endpoint)
