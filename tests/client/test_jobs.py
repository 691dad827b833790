import json
from collections.abc import Callable

import pytest
from google.rpc import status_pb2
from qlog.v1 import common_pb2, quantizer_pb2

from client.errors import QlogError
from client.follow import Patience
from client.job_follow import follow_job
from client.jobs import JobEvent
from client.quantizer_api import QuantizerApi
from tests.client import builders
from tests.client.builders import IDS
from tests.client.conftest import Ran
from tests.client.fakes import FakeQuantizer

Qlog = Callable[..., Ran]
OPERATION = f"operations/{IDS[0]}"


def script() -> list[quantizer_pb2.WatchExperimentResponse]:
    response = quantizer_pb2.WatchExperimentResponse
    metadata = quantizer_pb2.JobMetadata(experiment_id=IDS[0], state=quantizer_pb2.JOB_STATE_RUNNING, device="cpu")
    events = [response(experiment_event=event) for event in builders.run_events()]
    return [response(job=metadata), response(log_line="loading\x1b[1m"), *events, response(log_line="bye")]


def test_submitting_gives_the_job_and_returns(qlog: Qlog, quantizer: FakeQuantizer) -> None:
    """The operation's name and the experiment's id; every option as typed; one request id."""
    options = ["--quantize", "--w_bits", "8", "--percentile-alpha", "1.0", "--eval_zero_shot"]
    ran = qlog("submit", "models/mamba-2m", *options, "--quantizer", quantizer.endpoint)
    assert (ran.code, ran.err) == (0, "")
    assert OPERATION in ran.out
    assert IDS[0] in ran.out.replace(OPERATION, "")
    request = quantizer.submitted[0]
    assert (request.spec.model, request.spec.w_bits, request.spec.percentile_alpha) == ("models/mamba-2m", 8, "1.0")
    assert request.spec.quantize
    assert request.spec.eval_zero_shot
    assert len(request.request_id) == 36
    assert request.command.startswith("qlog ")


def test_the_same_request_is_one_job(qlog: Qlog, quantizer: FakeQuantizer) -> None:
    """With the request id given, submitting again names the job of the first time; without it there is another."""
    again = ["submit", "m", "--quantizer", quantizer.endpoint, "--format", "json", "--request_id", IDS[9]]
    names = [json.loads(qlog(*arguments).out)["name"] for arguments in (again, again, again[:-2])]
    assert names[0] == names[1]
    assert names[1] != names[2]


def test_what_cannot_be_run_is_wrong_usage(qlog: Qlog, quantizer: FakeQuantizer) -> None:
    """All that is wrong, in one line, exit code 2."""
    quantizer.violations = {"w_bits": "--w_bits 3: choose 4, 8 or 16", "task_list": "no task 'foo'"}
    ran = qlog("submit", "m", "--w_bits", "3", "--quantizer", quantizer.endpoint)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "choose 4, 8 or 16" in ran.err
    assert "no task 'foo'" in ran.err


@pytest.mark.parametrize("option", ["--wait", "--watch"])
def test_waiting_shows_progress_and_ends_with_the_summary(qlog: Qlog, quantizer: FakeQuantizer, option: str) -> None:
    """Progress goes to the standard error, the job and its summary to the standard output."""
    quantizer.script = script()
    ran = qlog("submit", "m", option, "--quantizer", quantizer.endpoint)
    assert ran.code == 0
    assert OPERATION in ran.out
    assert ran.out.endswith("all done\n")
    for text in ("RUNNING on cpu", "calibrate 2/2 documents", "layer_0.x_proj:input", "acc 0.5205", "loading\\x1b[1m"):
        assert text in ran.err


def test_waiting_quietly(qlog: Qlog, quantizer: FakeQuantizer) -> None:
    """With --no-watch only the summary is told; in JSON the job with its summary is the one answer."""
    quantizer.script = script()
    quantizer.outcome = quantizer_pb2.JobResult(summary="all\x1b done\n", results=builders.results())
    ran = qlog("submit", "m", "--wait", "--no-watch", "--quantizer", quantizer.endpoint)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.endswith("all\\x1b done\n")
    data = json.loads(qlog("submit", "m", "--wait", "--quantizer", quantizer.endpoint, "--format", "json").out)
    assert (data["state"], data["summary"]) == ("COMPLETED", "all\x1b done\n")
    assert data["results"]["accuracy"] == 0.5205


def test_a_job_that_fails_fails_the_command(qlog: Qlog, quantizer: FakeQuantizer) -> None:
    """Exit code 1, and the reason in one line."""
    quantizer.outcome = status_pb2.Status(code=13, message="the worker was killed")
    ran = qlog("submit", "m", "--wait", "--no-watch", "--quantizer", quantizer.endpoint)
    assert ran.code == 1
    assert ran.err == f"qlog: job {OPERATION} FAILED: the worker was killed\n"


def test_a_wait_goes_on_over_a_broken_stream(quantizer: FakeQuantizer) -> None:
    """A stream begins anew; what was told before is not told again."""
    quantizer.script = script()
    quantizer.cut_after = 5
    quantizer.add(IDS[0], quantizer_pb2.JOB_STATE_RUNNING)
    told: list[JobEvent] = []
    lost: list[QlogError] = []
    job = follow_job(
        lambda: QuantizerApi(quantizer.endpoint),
        OPERATION,
        on_event=told.append,
        on_lost=lost.append,
        patience=Patience(sleep=lambda _: None),
    )
    assert (job.state, job.summary) == ("COMPLETED", "all done\n")
    assert len(told) == len(quantizer.script) - 1  # The heartbeat is no event.
    assert quantizer.watches == 2
    assert lost == []


def test_jobs_are_listed(qlog: Qlog, quantizer: FakeQuantizer) -> None:
    """State, model, progress, place in the queue, device; over all pages."""
    running = quantizer_pb2.JobMetadata(
        experiment_id=IDS[1],
        state=quantizer_pb2.JOB_STATE_RUNNING,
        device="cuda:0",
        progress=common_pb2.Progress(phase="calibrate", done=3, total=8, unit="documents"),
    )
    running.spec.model = "mamba2-4m"
    running.create_time.FromSeconds(1_700_000_000)
    quantizer.add(IDS[0], quantizer_pb2.JOB_STATE_COMPLETED)
    quantizer.add(IDS[1], quantizer_pb2.JOB_STATE_RUNNING).metadata.Pack(running)
    quantizer.add(IDS[2], quantizer_pb2.JOB_STATE_QUEUED, queue_position=2)
    lines = qlog("jobs", "--quantizer", quantizer.endpoint).out.splitlines()
    assert [line.split()[1] for line in lines] == ["state", "COMPLETED", "RUNNING", "QUEUED"]
    for text in (IDS[1], "mamba2-4m", "calibrate 3/8 documents", "cuda:0", "2023-11-1"):
        assert text in lines[2]
    data = json.loads(qlog("jobs", "--quantizer", quantizer.endpoint, "--format", "json").out)
    assert [entry["queue_position"] for entry in data] == [0, 0, 2]
    assert data[1]["progress"] == {"phase": "calibrate", "done": 3, "total": 8, "unit": "documents"}
    assert qlog("jobs", "--quantizer", quantizer.endpoint, "--format", "csv").out.count("\n") == 4


def test_no_jobs_are_no_error(qlog: Qlog, quantizer: FakeQuantizer) -> None:
    """An idle quantizer says so."""
    ran = qlog("jobs", "--quantizer", quantizer.endpoint)
    assert (ran.code, ran.out) == (0, f"no jobs at {quantizer.endpoint}\n")


@pytest.mark.parametrize("name", [IDS[1], OPERATION.replace(IDS[0], IDS[1]), IDS[1][:13], IDS[1].upper()])
def test_a_job_is_cancelled_by_any_of_its_names(qlog: Qlog, quantizer: FakeQuantizer, name: str) -> None:
    """Its id, its operation's name or a unique prefix; and no other is."""
    for experiment_id in IDS[:3]:
        quantizer.add(experiment_id, quantizer_pb2.JOB_STATE_RUNNING)
    ran = qlog("cancel", name, "--quantizer", quantizer.endpoint)
    assert (ran.code, ran.err) == (0, "")
    assert "CANCELLED" in ran.out
    with QuantizerApi(quantizer.endpoint) as api:
        assert [job.state for job in api.jobs()] == ["RUNNING", "CANCELLED", "RUNNING"]


@pytest.mark.parametrize(
    ("name", "word"),
    [("0199c0de", "3 jobs"), ("ffff", "qlog jobs"), ("", "no job"), (IDS[7], "no job"), (IDS[2], "ended")],
)
def test_what_is_no_job_to_cancel(qlog: Qlog, quantizer: FakeQuantizer, name: str, word: str) -> None:
    """An ambiguous prefix, an unknown one, and a job that has ended are errors of one line."""
    quantizer.add(IDS[0], quantizer_pb2.JOB_STATE_RUNNING)
    quantizer.add(IDS[1], quantizer_pb2.JOB_STATE_RUNNING)
    quantizer.add(IDS[2], quantizer_pb2.JOB_STATE_FAILED)
    ran = qlog("cancel", name, "--quantizer", quantizer.endpoint)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert word in ran.err
