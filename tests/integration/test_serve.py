"""`quantizer serve` as users start it: a process of its own, real workers, a small model, a real collector."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf.duration_pb2 import Duration
from qlog.v1 import quantizer_pb2 as pb
from qlog.v1.quantizer_pb2_grpc import QuantizerServiceStub
from qlog.v1.spec_pb2 import ExperimentSpec

from tests.processes import serving
from tests.quantizer.conftest import until
from tests.quantizer.runs import numbers, records, run, write_inputs

# gRPC does not survive in the child of a fork: a service that forks ends at once here.
UNFORKED = """
import os, sys
os.register_at_fork(before=lambda: os._exit(99))
from quantizer.entry import main
main(sys.argv[1:])
"""


class Running:
    """A quantizer and a collector, each in a process of its own, and a client of the first."""

    def __init__(self, process: Any, address: str, root: Path, store: Path) -> None:
        self.process, self.root, self.store = process, root, store
        self.channel = grpc.insecure_channel(address)
        self.quantizer = QuantizerServiceStub(self.channel)
        self.operations = operations_pb2_grpc.OperationsStub(self.channel)

    def submit(self, documents: int = 4) -> str:
        spec = ExperimentSpec(
            model="model",
            quantize=True,
            calib_data_num=documents,
            calib_seqlen=32,
            batch_size=4,
            stats_layers="all",
            eval_ppl=True,
            ppl_dataset="text.txt",
        )
        return str(self.quantizer.SubmitExperiment(pb.SubmitExperimentRequest(spec=spec), timeout=30).name)

    def wait(self, name: str) -> Any:
        request = operations_pb2.WaitOperationRequest(name=name, timeout=Duration(seconds=100))
        operation = self.operations.WaitOperation(request, timeout=110)
        assert operation.done
        return operation

    def until_calibrating(self, name: str) -> None:
        for response in self.quantizer.WatchExperiment(pb.WatchExperimentRequest(name=name), timeout=60):
            if response.experiment_event.progress.phase == "calibrate":
                return

    def workers(self) -> list[int]:
        """Processes whose parent is the quantizer, without multiprocessing's resource tracker."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    command = (entry / "cmdline").read_bytes()
                except (OSError, IndexError):
                    continue
                if parent == self.process.pid and b"spawn_main" in command:
                    found.append(int(entry.name))
        return found

    def record(self, name: str) -> dict[str, Any]:
        """The record of a job, once it is there."""
        wanted = name.removeprefix("operations/")
        until(lambda: any(line["experiment_id"] == wanted for line in records(self.store)), "the record is stored")
        (found,) = (line for line in records(self.store) if line["experiment_id"] == wanted)
        return found


@contextmanager
def programs(root: Path, directory: Path) -> Iterator[Running]:
    store = directory / "store"
    with serving("collector.entry", "serve", "--port", "0", "--log_dir", str(store)) as (_, collector):
        words = ["serve", "--port", "0", "--model_root", str(root), "--log_dir", str(directory / "logs")]
        words += ["--collector", collector, "--devices", "cpu"]
        with serving("-c", UNFORKED, *words) as (process, address):
            client = Running(process, address, root, store)
            yield client
            client.channel.close()


@pytest.fixture(scope="module")
def running(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """For tests that leave the service as they found it."""
    with programs(root, tmp_path_factory.mktemp("shared")) as client:
        yield client


@pytest.fixture
def ending(root: Path, tmp_path: Path) -> Iterator[Running]:
    """For tests that end the service."""
    with programs(root, tmp_path) as client:
        yield client


def test_a_job_gives_the_same_numbers_as_a_run(running: Running, root: Path, tmp_path: Path) -> None:
    """One code path: what `run` measures, a job measures; watching tells all of it while it runs."""
    name = running.submit()
    told = list(running.quantizer.WatchExperiment(pb.WatchExperimentRequest(name=name), timeout=100))
    result = pb.JobResult()
    assert running.wait(name).response.Unpack(result)
    record = running.record(name)
    streamed = [
        response.experiment_event.layer_stats.name
        for response in told
        if response.experiment_event.HasField("layer_stats")
    ]
    assert streamed == list(record["activation_stats"])
    assert f"{record['results']['perplexity']:.4f}" in result.summary
    assert result.results.perplexity == record["results"]["perplexity"]
    words = write_inputs(tmp_path / "again")[1]
    assert run(words, tmp_path / "local") == 0
    (by_run,) = records(tmp_path / "local")
    for key in ("activation_stats", "model", "calibration", "status"):
        assert numbers(record)[key] == numbers(by_run)[key]
    assert record["results"]["perplexity"] == by_run["results"]["perplexity"]


def test_a_worker_that_is_killed_fails_its_job_alone(running: Running) -> None:
    """kill -9 of a worker in the middle: its record says so, and the next job completes in a fresh process."""
    crashing = running.submit(documents=512)
    running.until_calibrating(crashing)
    (worker,) = running.workers()
    os.kill(worker, signal.SIGKILL)
    next_one = running.submit()
    assert "SIGKILL" in running.wait(crashing).error.message
    assert running.wait(next_one).HasField("response")
    record = running.record(crashing)
    assert record["status"] == "FAILED"
    assert "SIGKILL" in record["error"]
    assert running.record(next_one)["status"] == "COMPLETED"


def test_a_job_is_cancelled_while_it_runs(running: Running) -> None:
    """Cancel reaches a calibration between its batches; the record says CANCELLED."""
    name = running.submit(documents=512)
    running.until_calibrating(name)
    running.operations.CancelOperation(operations_pb2.CancelOperationRequest(name=name), timeout=10)
    assert running.wait(name).error.code == 1
    assert running.record(name)["status"] == "CANCELLED"


def test_sigterm_ends_what_runs_and_leaves_nobody_behind(ending: Running) -> None:
    """The running job is recorded as CANCELLED, the process ends with 0, and so do its workers."""
    name = ending.submit(documents=512)
    ending.until_calibrating(name)
    workers = ending.workers()
    ending.process.send_signal(signal.SIGTERM)
    assert ending.process.wait(60) == 0
    assert ending.record(name)["error"] == "the quantizer was stopped"
    until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), "the workers are gone")


def test_a_killed_service_leaves_no_worker_and_its_job_is_ended_by_the_next(ending: Running, tmp_path: Path) -> None:
    """kill -9 of the service: workers end by themselves; the next program on that spool finishes the record."""
    name = ending.submit(documents=512)
    ending.until_calibrating(name)
    workers = ending.workers()
    ending.process.kill()
    ending.process.wait()
    until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), "the workers are gone")
    from quantizer.entry import run_command

    assert run_command(["spool", "flush", "--log_dir", str(tmp_path / "logs")]) == 0
    assert ending.record(name)["error"] == "the process ended without finishing"
