"""The service, with real servers on port 0 and real spawned workers that do as they are told."""

import os
import signal
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from qlog.v1 import quantizer_pb2 as pb
from qlog.v1.quantizer_pb2_grpc import QuantizerServiceStub
from qlog.v1.serving.listening import Listening
from qlog.v1.spec_pb2 import ExperimentSpec

from quantizer import device_runner
from quantizer.errors import QuantizerError, SpecError
from quantizer.job import JobState
from quantizer.job_wire import STATES
from quantizer.serve import QuantizerServer, ServeOptions, check_host
from quantizer.settings import Settings
from tests.quamba.checkpoints import small_config, write_checkpoint
from tests.quantizer.conftest import until
from tests.quantizer.fake_collector import FakeCollector
from tests.quantizer.fake_workers import scripted_worker

MODELS = ("plain", "dies-at-once", "is-killed", "segfaults", "waits", "waits-deaf", "fails")


class Client:
    """A client of one server."""

    def __init__(self, port: int) -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.quantizer = QuantizerServiceStub(self.channel)
        self.operations = operations_pb2_grpc.OperationsStub(self.channel)

    def submit(self, model: str, request_id: str = "", **options: Any) -> str:
        spec = ExperimentSpec(model=model, **{"quantize": True, **options})
        request = pb.SubmitExperimentRequest(spec=spec, request_id=request_id, command=f"qlog submit {model}")
        return str(self.quantizer.SubmitExperiment(request, timeout=30).name)

    def operation(self, name: str) -> Any:
        return self.operations.GetOperation(operations_pb2.GetOperationRequest(name=name), timeout=10)

    def wait(self, name: str) -> Any:
        request = operations_pb2.WaitOperationRequest(name=name, timeout=Duration(seconds=50))
        operation = self.operations.WaitOperation(request, timeout=60)
        assert operation.done
        return operation

    def cancel(self, name: str) -> None:
        self.operations.CancelOperation(operations_pb2.CancelOperationRequest(name=name), timeout=10)

    def watch(self, name: str) -> list[pb.WatchExperimentResponse]:
        return list(self.quantizer.WatchExperiment(pb.WatchExperimentRequest(name=name), timeout=60))

    def metadata(self, name: str) -> pb.JobMetadata:
        metadata = pb.JobMetadata()
        assert self.operation(name).metadata.Unpack(metadata)
        return metadata


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for name in MODELS:
        write_checkpoint(root / name, small_config("mamba1"))
    write_checkpoint(root.parent / "outside", small_config("mamba1"))
    (root / "link").symlink_to(root.parent / "outside")
    return root


class Servers:
    """Servers of a test, stopped at its end."""

    def __init__(self, models: Path, log_dir: Path, collector: FakeCollector) -> None:
        self.collector = collector
        self.log: list[str] = []
        self._models, self._log_dir = models, log_dir
        self._stack = ExitStack()

    def start(self, **options: Any) -> tuple[QuantizerServer, Client]:
        serve = ServeOptions(model_root=self._models, devices="cpu", listening=Listening(**options))
        settings = Settings(self._log_dir, self.collector.address)
        server = QuantizerServer(serve, settings, log=self.log.append, worker_main=scripted_worker)
        self._stack.callback(server.stop)
        client = Client(server.port)
        self._stack.callback(client.channel.close)
        return server, client

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def servers(models: Path, tmp_path: Path, collector: FakeCollector) -> Iterator[Servers]:
    started = Servers(models, tmp_path / "logs", collector)
    yield started
    started.close()


@pytest.fixture
def client(servers: Servers) -> Client:
    return servers.start()[1]


def experiment(name: str) -> str:
    return name.removeprefix("operations/")


def failure(call: Any, *arguments: Any, **options: Any) -> tuple[grpc.StatusCode, str, dict[str, Any]]:
    """Status, message and details of a call that is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
    details: dict[str, Any] = {}
    for packed in status.details if status is not None else ():
        name = packed.TypeName().rpartition(".")[2]
        details[name] = getattr(error_details_pb2, name)()
        packed.Unpack(details[name])
    return caught.value.code(), caught.value.details(), details


def finish_of(collector: FakeCollector, name: str) -> Any:
    until(lambda: collector.finished(experiment(name)), "the record is delivered")
    return collector.store[experiment(name)][-1].finish


def test_a_job_runs_and_its_operation_says_so(client: Client, collector: FakeCollector) -> None:
    """Submitted, done, with its summary in the response and its events at the collector."""
    name = client.submit("plain")
    operation = client.wait(name)
    result = pb.JobResult()
    assert operation.response.Unpack(result)
    assert "Model            plain" in result.summary
    assert "number 0" in result.summary
    assert collector.kinds(experiment(name)) == ["begin", "layer_stats", "finish"]
    assert collector.store[experiment(name)][0].begin.command == "qlog submit plain"
    metadata = client.metadata(name)
    assert metadata.state == pb.JOB_STATE_COMPLETED
    assert metadata.device == "cpu"
    assert metadata.spec.model == "plain"


def test_the_same_request_id_is_the_same_job(client: Client) -> None:
    """A repeated submission queues nothing; one for something else is refused."""
    request_id = str(uuid.uuid4())
    names = {client.submit("plain", request_id) for _ in range(3)}
    assert len(names) == 1
    code, _, details = failure(client.submit, "waits", request_id)
    assert code == grpc.StatusCode.ALREADY_EXISTS
    assert details["BadRequest"].field_violations[0].field == "request_id"
    assert client.submit("plain", str(uuid.uuid4())) not in names


def test_submitted_at_the_same_moment_it_is_still_one_job(client: Client) -> None:
    """Idempotence holds under a race."""
    request_id, names = str(uuid.uuid4()), []
    threads = [threading.Thread(target=lambda: names.append(client.submit("plain", request_id))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names) == 8
    assert len(set(names)) == 1


@pytest.mark.parametrize(
    ("model", "signal_name"), [("is-killed", "SIGKILL"), ("segfaults", "SIGSEGV"), ("dies-at-once", "exit code 7")]
)
def test_a_crash_is_that_jobs_failure_only(
    model: str, signal_name: str, client: Client, collector: FakeCollector
) -> None:
    """The record says what killed the worker; the next job gets a fresh one and completes."""
    crashing, next_one = client.submit(model), client.submit("plain")
    assert signal_name in client.wait(crashing).error.message
    assert client.wait(next_one).HasField("response")
    finish = finish_of(collector, crashing)
    assert signal_name in finish.error
    assert collector.kinds(experiment(crashing))[0] == "begin"


def test_a_worker_killed_from_outside_is_that_jobs_failure_only(servers: Servers, collector: FakeCollector) -> None:
    """kill -9 of the worker in the middle of a job."""
    server, client = servers.start()
    name = client.submit("waits")
    until(lambda: client.metadata(name).progress.phase == "waiting", "the job runs")
    worker = server._runners[0]._worker
    assert worker is not None
    assert worker.process.pid is not None
    os.kill(worker.process.pid, signal.SIGKILL)
    assert "SIGKILL" in client.wait(name).error.message
    assert client.wait(client.submit("plain")).HasField("response")
    assert finish_of(collector, name).error


def test_a_worker_that_dies_idle_costs_no_job(servers: Servers) -> None:
    """The next job gets a fresh worker, not the dead one."""
    server, client = servers.start()
    client.wait(client.submit("plain"))
    worker = server._runners[0]._worker
    assert worker is not None
    worker.process.kill()
    worker.process.join()
    assert client.wait(client.submit("plain")).HasField("response")


def test_a_worker_stays_for_the_next_job(client: Client) -> None:
    """Jobs that complete share a process: torch is loaded once."""
    lines = []
    for _ in range(2):
        name = client.submit("plain")
        lines += [response.log_line for response in client.watch(name) if response.log_line]
    assert len(lines) == 2
    assert lines[0] == lines[1]


def test_a_failed_job_says_why(client: Client, collector: FakeCollector) -> None:
    """The operation's error is the record's."""
    name = client.submit("fails")
    assert client.wait(name).error.message == "it went wrong"
    assert finish_of(collector, name).error == "it went wrong"


def test_a_running_job_is_cancelled(client: Client, collector: FakeCollector) -> None:
    """It ends as CANCELLED, in the operation and in the record."""
    name = client.submit("waits")
    until(lambda: client.metadata(name).state == pb.JOB_STATE_RUNNING, "the job runs")
    client.cancel(name)
    assert client.wait(name).error.code == 1
    assert client.metadata(name).state == pb.JOB_STATE_CANCELLED
    assert finish_of(collector, name).error == "cancelled by request"


def test_a_job_that_does_not_listen_is_ended_after_a_grace(
    client: Client, collector: FakeCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process is killed; its record says CANCELLED, not FAILED."""
    monkeypatch.setattr(device_runner, "CANCEL_GRACE_S", 0.2)
    name = client.submit("waits-deaf")
    until(lambda: client.metadata(name).progress.phase == "waiting", "the job runs")
    client.cancel(name)
    assert client.wait(name).error.code == 1
    assert finish_of(collector, name).error == "cancelled by request"


def test_a_waiting_job_is_cancelled_at_once_and_never_runs(client: Client, collector: FakeCollector) -> None:
    """It knows its place in the queue, and leaves no record: it was no experiment yet."""
    running, waiting = client.submit("waits"), client.submit("plain")
    assert client.metadata(waiting).queue_position == 1
    client.cancel(waiting)
    assert client.operation(waiting).done
    client.cancel(running)
    client.wait(running)
    assert experiment(waiting) not in collector.store


def test_watching_tells_everything_from_the_start(client: Client) -> None:
    """Also to those who come when it is over; the last word is the job, done."""
    name = client.submit("plain")
    client.wait(name)
    responses = client.watch(name)
    kinds = [response.WhichOneof("event") for response in responses]
    assert kinds == ["experiment_event", "experiment_event", "log_line", "experiment_event", "job"]
    assert responses[0].experiment_event.HasField("begin")
    assert responses[-1].job.state == pb.JOB_STATE_COMPLETED


def test_operations_are_listed_in_pages(client: Client) -> None:
    """All jobs, once each, in the order in which they were submitted."""
    names = [client.submit("plain") for _ in range(5)]
    found, token = [], ""
    while True:
        request = operations_pb2.ListOperationsRequest(name="operations", page_size=2, page_token=token)
        response = client.operations.ListOperations(request, timeout=10)
        found += [operation.name for operation in response.operations]
        if not (token := response.next_page_token):
            break
    assert found == names


@pytest.mark.parametrize(
    ("model", "options", "field"),
    [
        ("plain", {"w_bits": 3}, "spec.w_bits"),
        ("plain", {"percentile_alpha": "2"}, "spec.percentile_alpha"),
        ("plain", {"stats_layers": "9,"}, "spec.stats_layers"),
        ("plain", {"device": "cuda:5"}, "spec.device"),
        ("plain", {"eval_zero_shot": True, "task_list": "no_such_task"}, "spec.task_list"),
        ("plain", {"calib_data": "/etc/passwd"}, "spec.calib_data"),
        ("plain", {"eval_ppl": True, "ppl_dataset": "../outside/config.json"}, "spec.ppl_dataset"),
        ("nowhere", {}, "spec.model"),
        ("../outside", {}, "spec.model"),
        ("/etc", {}, "spec.model"),
        ("link", {}, "spec.model"),
        ("a\0b", {}, "spec.model"),
        ("x" * 300, {}, "spec.model"),
        ("~nobody-of-that-name/model", {}, "spec.model"),
        ("plain", {"eval_ppl": True, "ppl_dataset": "x" * 300}, "spec.ppl_dataset"),
        ("", {}, "spec.model"),
    ],
)
def test_the_whole_specification_is_validated_before_it_is_queued(
    model: str, options: dict[str, Any], field: str, client: Client
) -> None:
    """INVALID_ARGUMENT with the field, and no job."""
    code, message, details = failure(client.submit, model, **options)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert field in {violation.field for violation in details["BadRequest"].field_violations}
    assert details["ErrorInfo"].reason == "INVALID_SPEC"
    assert "\n" not in message
    assert not client.operations.ListOperations(operations_pb2.ListOperationsRequest(), timeout=10).operations


def test_what_frames_a_specification_is_validated_too(client: Client) -> None:
    """Request ids, commands, and options of versions to come."""
    spec = ExperimentSpec(model="plain", quantize=True)
    newer = ExperimentSpec.FromString(spec.SerializeToString() + b"\xf8\x3f\x01")  # Field 1023 = 1.
    for request, field in (
        (pb.SubmitExperimentRequest(spec=spec, request_id="no uuid"), "request_id"),
        (pb.SubmitExperimentRequest(spec=spec, command="x" * 10_000), "command"),
        (pb.SubmitExperimentRequest(spec=newer), "spec"),
    ):
        code, _, details = failure(client.quantizer.SubmitExperiment, request, timeout=10)
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert details["BadRequest"].field_violations[0].field == field


def test_a_job_that_is_not_there_is_not_found(client: Client) -> None:
    """By every call that names one."""
    name = f"operations/{uuid.uuid4()}"
    for call, request in (
        (client.operations.GetOperation, operations_pb2.GetOperationRequest(name=name)),
        (client.operations.CancelOperation, operations_pb2.CancelOperationRequest(name=name)),
        (client.operations.DeleteOperation, operations_pb2.DeleteOperationRequest(name=name)),
        (client.operations.WaitOperation, operations_pb2.WaitOperationRequest(name=name)),
    ):
        assert failure(call, request, timeout=10)[0] == grpc.StatusCode.NOT_FOUND
    assert failure(client.watch, name)[0] == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("seconds", [2**62, -(2**62), 0])
def test_waiting_for_any_time_is_waiting_for_a_possible_one(client: Client, seconds: int) -> None:
    """Centuries and times before now are answered: a job that is done at once, one that runs when the time is over."""
    name = client.submit("plain" if seconds > 0 else "waits")
    request = operations_pb2.WaitOperationRequest(name=name, timeout=Duration(seconds=seconds))
    assert client.operations.WaitOperation(request, timeout=60).done is (seconds > 0)


def test_a_job_that_is_done_can_be_deleted_and_one_that_runs_cannot(client: Client) -> None:
    """DeleteOperation forgets the job, not its record."""
    done, running = client.submit("plain"), client.submit("waits")
    client.wait(done)
    client.operations.DeleteOperation(operations_pb2.DeleteOperationRequest(name=done), timeout=10)
    assert failure(client.operation, done)[0] == grpc.StatusCode.NOT_FOUND
    request = operations_pb2.DeleteOperationRequest(name=running)
    assert failure(client.operations.DeleteOperation, request, timeout=10)[0] == grpc.StatusCode.FAILED_PRECONDITION


def test_models_and_devices_are_listed(client: Client) -> None:
    """As a job may name them; nothing from outside the root."""
    models = client.quantizer.ListModels(pb.ListModelsRequest(), timeout=10).models
    assert sorted(model.name for model in models) == sorted(MODELS)
    assert {model.family for model in models} == {"mamba1"}
    name = client.submit("waits")
    until(lambda: client.metadata(name).state == pb.JOB_STATE_RUNNING, "the job runs")
    (device,) = client.quantizer.ListDevices(pb.ListDevicesRequest(), timeout=10).devices
    assert device.name == "cpu"
    assert device.memory_bytes > 0
    assert device.experiment_id == experiment(name)


def test_stopping_ends_what_runs_and_what_waits(servers: Servers) -> None:
    """Each leaves a record that says so; watchers are told; nothing is taken any more."""
    server, client = servers.start()
    running, waiting = client.submit("waits"), client.submit("plain")
    until(lambda: client.metadata(running).progress.phase == "waiting", "the job runs")
    watched: list[pb.WatchExperimentResponse] = []
    watcher = threading.Thread(target=lambda: watched.extend(client.watch(running)))
    watcher.start()
    until(lambda: client.metadata(running).state == pb.JOB_STATE_RUNNING, "the watcher watches")
    server.stop()
    watcher.join()
    assert watched[-1].job.state == pb.JOB_STATE_CANCELLED
    for name in (running, waiting):
        assert finish_of(servers.collector, name).error == "the quantizer was stopped"


def test_health_tells_when_it_is_ready(client: Client) -> None:
    """The standard health service knows the whole and each service."""
    stub = health_pb2_grpc.HealthStub(client.channel)
    for name in ("", "qlog.v1.QuantizerService", "google.longrunning.Operations"):
        status = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status
        assert status == health_pb2.HealthCheckResponse.SERVING


def test_a_port_that_is_taken_is_one_line(servers: Servers) -> None:
    """The second server on a port says so and leaves the first alone."""
    server, client = servers.start()
    with pytest.raises(QuantizerError, match="--port"):
        servers.start(port=server.port)
    assert client.wait(client.submit("plain")).done


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", ""])
def test_others_are_let_in_only_when_that_is_said(host: str) -> None:
    """Without TLS and tokens, an address that others reach needs --insecure."""
    with pytest.raises(SpecError, match="--insecure"):
        check_host(Listening(host))
    check_host(Listening(host, insecure=True))


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a b", "." * 300])
def test_an_address_that_is_none_is_said_to_be(host: str) -> None:
    """With --insecure or without."""
    for insecure in (False, True):
        with pytest.raises(SpecError, match="no such address"):
            check_host(Listening(host, insecure=insecure))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_loopback_needs_no_permission(host: str) -> None:
    """The default listens where only this machine reaches it."""
    check_host(Listening(host))


def test_every_state_of_a_job_has_its_name_on_the_wire() -> None:
    """The table is total and one to one."""
    assert set(STATES) == set(JobState)
    assert len(set(STATES.values())) == len(JobState)
