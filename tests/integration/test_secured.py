"""TLS and tokens between real programs: runs record over them, jobs are taken from those who may, trouble is cheap."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from client.entry import main as qlog
from quantizer.entry import run_command
from tests.processes import serving
from tests.quantizer.runs import numbers, records, run, write_inputs
from tests.secured import Secured, secured


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inputs")


@pytest.fixture(scope="module")
def words(root: Path) -> list[str]:
    return write_inputs(root)[1]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Secured:
    return secured(tmp_path_factory.mktemp("secured") / "files")


@pytest.fixture(scope="module")
def undisturbed(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The record of the same experiment in a local store."""
    log_dir = tmp_path_factory.mktemp("undisturbed")
    assert run(words, log_dir) == 0
    (record,) = records(log_dir)
    return record


@pytest.fixture
def collector(files: Secured, tmp_path: Path) -> Iterator[str]:
    """The address of a collector with TLS and tokens; its store is `there`."""
    where = ["--port", "0", "--log_dir", str(tmp_path / "there")]
    with serving("collector.entry", "serve", *where, *files.server) as (_, address):
        yield address


def test_a_run_records_over_tls(
    words: list[str],
    files: Secured,
    collector: str,
    undisturbed: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With a writer's token; the record is the same, a reader sees it, and the token is nowhere."""
    assert run(words, tmp_path / "here", "--collector", collector, *files.client("writer")) == 0
    told = capsys.readouterr()
    assert "warning" not in told.err
    (record,) = records(tmp_path / "there")
    assert numbers(record) == numbers(undisturbed)
    assert qlog(["list", "--format", "json", "--collector", collector, *files.client("reader")]) == 0
    assert json.loads(capsys.readouterr().out)[0]["experiment_id"] == record["experiment_id"]
    assert "w-secret" not in json.dumps(record) + told.out + told.err


Options = Callable[[Secured], list[str]]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        pytest.param(lambda files: files.client("nobody"), "token", id="a wrong token"),
        pytest.param(lambda files: files.client("reader"), "role", id="a reader's token"),
        pytest.param(lambda files: files.client("writer")[:2], "token", id="no token"),
        pytest.param(lambda files: files.client("writer")[2:], "tls_ca", id="no TLS"),
        pytest.param(
            lambda files: ["--tls_ca", secured(files.directory / "others").ca, *files.client("writer")[2:]],
            "certificate",
            id="a server that is not trusted",
        ),
    ],
)
def test_who_may_not_record_computes_all_the_same(
    words: list[str],
    files: Secured,
    collector: str,
    undisturbed: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: Options,
    reason: str,
) -> None:
    """One warning that says why; the events stay in the spool, and a flush with a right token delivers them."""
    assert run(words, tmp_path / "here", "--collector", collector, *options(files)) == 0
    told = capsys.readouterr()
    assert told.err.count("warning") == 1, told.err
    assert reason in told.err
    assert "not yet" in told.out
    assert "secret" not in told.out + told.err
    assert records(tmp_path / "there") == []
    flush = ["spool", "flush", "--log_dir", str(tmp_path / "here"), "--collector", collector]
    assert run_command([*flush, *options(files)]) == 1
    told = capsys.readouterr()
    assert told.err.count("\n") == 1, told.err
    assert reason in told.err
    assert run_command([*flush, *files.client("writer")]) == 0
    assert "sent 1 " in capsys.readouterr().out
    (record,) = records(tmp_path / "there")
    assert numbers(record) == numbers(undisturbed)


def test_jobs_are_taken_from_those_who_may(
    root: Path,
    words: list[str],
    files: Secured,
    collector: str,
    undisturbed: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A writer submits over TLS and waits, a reader sees the job and may not submit; nor does anybody unknown."""
    options = [
        "--model_root",
        str(root),
        "--log_dir",
        str(tmp_path / "here"),
        "--devices",
        "cpu",
        "--collector",
        collector,
    ]
    serve = ["serve", "--port", "0", *options, *files.server, *files.client("writer", "collector_")]
    job = ["submit", "model", *words[2:-1], "text.txt"]
    with serving("quantizer.entry", *serve) as (_, address):
        where = ["--quantizer", address]

        def told(*arguments: str) -> tuple[int, str, str]:
            code = qlog([*arguments, *where])
            captured = capsys.readouterr()
            assert "secret" not in captured.out + captured.err
            return code, captured.out, captured.err

        for client, reason in (
            (files.client("reader"), "role"),
            (files.client("nobody"), "token"),
            (files.client("writer")[:2], "token"),
            (files.client("writer")[2:], "--tls_ca"),
        ):
            code, out, err = told(*job, *client)
            assert (code, out, err.count("\n")) == (1, "", 1), err
            assert reason in err
        assert told(*job, "--wait", *files.client("writer"))[0] == 0
        for role in ("reader", "writer"):
            code, out, err = told("jobs", "--format", "json", *files.client(role))
            assert (code, err) == (0, "")
            assert len(json.loads(out)) == 1
        assert told("jobs")[0] == 1
    (record,) = records(tmp_path / "there")
    for key in ("activation_stats", "calibration", "status"):
        assert record[key] == undisturbed[key]
    assert record["results"]["perplexity"] == undisturbed["results"]["perplexity"]
