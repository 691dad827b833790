"""TLS and tokens between real programs: runs record over them, jobs are taken from those who may, trouble is cheap."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from client.entry import main as qlog
from tests.integration.conftest import Case
from tests.integration.moments import collector
from tests.processes import serving
from tests.quantizer.runs import records
from tests.secured import Secured, secured


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Secured:
    return secured(tmp_path_factory.mktemp("secured") / "files")


@pytest.fixture
def guarded(files: Secured, case: Case) -> Iterator[str]:
    """The address of a collector with TLS and tokens."""
    with collector(case.there, 0, *files.server) as (_, address):
        yield address


def test_a_run_records_over_tls(case: Case, files: Secured, guarded: str) -> None:
    """With a writer's token; the record is the same, a reader sees it, and the token is nowhere."""
    out, err = case.run(guarded, *files.client("writer"))
    assert "warning" not in err
    record = case.check()
    assert qlog(["list", "--format", "json", "--collector", guarded, *files.client("reader")]) == 0
    assert json.loads(case.capture.readouterr().out)[0]["experiment_id"] == record["experiment_id"]
    assert "w-secret" not in json.dumps(record) + out + err


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
    case: Case, files: Secured, guarded: str, options: Options, reason: str
) -> None:
    """One warning that says why; the events stay in the spool, and a flush with a right token delivers them."""
    warned = case.run_away(guarded, *options(files))
    assert reason in warned
    assert "secret" not in warned
    assert records(case.there) == []
    code, _, err = case.flush(guarded, *options(files))
    assert (code, err.count("\n"), reason in err) == (1, 1, True), err
    assert case.flush(guarded, *files.client("writer"))[:2] == (0, "sent 1 experiment\n")
    case.check()


def test_jobs_are_taken_from_those_who_may(case: Case, root: Path, files: Secured, guarded: str) -> None:
    """A writer submits over TLS and waits, a reader sees the job and may not submit; nor does anybody unknown."""
    options = ["--model_root", str(root), "--log_dir", str(case.here), "--devices", "cpu", "--collector", guarded]
    serve = ["serve", "--port", "0", *options, *files.server, *files.client("writer", "collector_")]
    job = ["submit", "model", *case.words[2:-1], "text.txt"]
    with serving("quantizer.entry", *serve) as (_, address):
        where = ["--quantizer", address]

        def told(*arguments: str) -> tuple[int, str, str]:
            code = qlog([*arguments, *where])
            captured = case.capture.readouterr()
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
    (record,) = records(case.there)
    for key in ("activation_stats", "calibration", "status"):
        assert record[key] == case.undisturbed[key]
    assert record["results"]["perplexity"] == case.undisturbed["results"]["perplexity"]
