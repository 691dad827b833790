"""Clients that know nothing of this project but its contract: one in Node, and one made by reflection alone."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import google.rpc
import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.json_format import MessageToDict, ParseDict
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from qlog.v1.serving.listening import Listening

from quantizer.serve import QuantizerServer, ServeOptions
from quantizer.settings import Settings
from tests.processes import serving
from tests.quantizer.fake_workers import scripted_worker
from tests.quantizer.runs import records
from tests.secured import Secured, secured

_NODE = Path(__file__).parent / "node"
_PROTO = Path(__file__).parents[2] / "proto"
_GOOGLEAPIS = Path(next(iter(google.rpc.__path__))).parents[1]


@pytest.fixture(scope="module")
def node() -> str:
    """The program, where the client can be run."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("Node is not installed")
    if not (_NODE / "node_modules" / "@grpc" / "grpc-js").is_dir():
        pytest.skip("its packages are not there: run npm install --prefix tests/integration/node")
    return program


def told(node: str, address: str, *options: str) -> Any:
    """What the client prints."""
    words = [node, str(_NODE / "client.js"), address, str(_PROTO), str(_GOOGLEAPIS), *options]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def collector(log_dir: Path, *options: str) -> Any:
    return serving("collector.entry", "serve", "--port", "0", "--log_dir", str(log_dir), *options)


def check(answers: Any, log_dir: Path) -> None:
    """What the client was answered, and what is in the store."""
    reason, violation = "google.rpc.ErrorInfo", "google.rpc.BadRequest"
    # Batches that are committed together are acknowledged with the same offset.
    assert [answer["committed_offset"] for answer in answers["first"]] in (["1", "3"], ["3", "3"])
    assert answers["gap"]["code"] == "OUT_OF_RANGE"
    assert answers["gap"][reason]["metadata"] == {"wanted_offset": "3"}
    assert answers["status"] == {"committed_offset": "3"}
    assert [answer["committed_offset"] for answer in answers["rest"]] in (["4", "6"], ["6", "6"])
    assert answers["rest"][1]["number"] == "0"
    kinds = ["begin", "layer_stats", "layer_stats", "layer_stats", "evaluation_result", "finish"]
    assert answers["watched"] == [*kinds, "ended 0"]
    assert answers["repeated"][0]["committed_offset"] == "6"
    assert answers["ended"]["code"] == "FAILED_PRECONDITION"
    assert answers["listed"]["total_size"] == "1"
    assert answers["listed"]["experiments"][0]["experiment_id"] == answers["id"]
    assert answers["page"]["experiments"][0]["number"] == "1"
    assert answers["page"]["next_page_token"]
    assert answers["wrong_filter"][violation]["field_violations"][0]["field"] == "filter"
    assert answers["got"]["layer_stats"][2]["count"] == "9007199254740993"
    assert answers["compared"]["config"]
    assert answers["nobody"]["code"] == "NOT_FOUND"
    first, second = records(log_dir)
    assert first["activation_stats"]["layer_2.x_proj:input"]["count"] == 9007199254740993
    assert (first["results"]["accuracy"], first["results"]["perplexity"]) == (0.5205, 9.621)
    assert (first["status"], second["config"]["model"]) == ("COMPLETED", "other-model")


@pytest.mark.node
def test_a_client_in_node_appends_and_reads(node: str, tmp_path: Path) -> None:
    """From the .proto files alone: appends, resumes, is told of gaps, lists, filters, watches, compares."""
    with collector(tmp_path) as (_, address):
        check(told(node, address), tmp_path)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Secured:
    return secured(tmp_path_factory.mktemp("secured") / "files")


@pytest.mark.node
def test_a_client_in_node_with_tls_and_a_token(node: str, files: Secured, tmp_path: Path) -> None:
    """The same over TLS for an admin; without a token it is told so."""
    with collector(tmp_path, *files.server) as (_, address):
        address = address.replace("127.0.0.1", "localhost")  # Node checks no name that is an address.
        check(told(node, address, "--ca", files.ca, "--token", files.token("admin")), tmp_path)
        words = [node, str(_NODE / "client.js"), address, str(_PROTO), str(_GOOGLEAPIS), "--ca", files.ca]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert json.loads(done.stderr)["code"] == "UNAUTHENTICATED"


@pytest.mark.node
def test_a_client_in_node_goes_on_after_a_collector_was_killed(node: str, tmp_path: Path) -> None:
    """What was acknowledged is there after kill -9; the client asks, and sends the rest."""
    experiment = "0198e0a4-0000-7000-8000-000000000001"
    with collector(tmp_path) as (process, address):
        assert told(node, address, "--experiment", experiment, "--stop", "3")["from"] == 0
        process.kill()
        process.wait()
    with collector(tmp_path) as (_, address):
        after = told(node, address, "--experiment", experiment, "--stop", "6")
    assert after["from"] == 3
    assert after["answers"][-1]["number"] == "0"
    (record,) = records(tmp_path)
    assert list(record["activation_stats"]) == [f"layer_{index}.x_proj:input" for index in range(3)]


class Reflected:
    """A client that asks the server what it can be asked, and builds messages from the answer."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self.database = ProtoReflectionDescriptorDatabase(self._channel)
        self._pool = descriptor_pool.DescriptorPool(self.database)

    def __enter__(self) -> "Reflected":
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def call(self, method: str, **request: Any) -> dict[str, Any]:
        """A unary call, from JSON to JSON."""
        service, _, name = method.rpartition("/")
        described = self._pool.FindServiceByName(service).FindMethodByName(name)
        asked = message_factory.GetMessageClass(described.input_type)
        answered = message_factory.GetMessageClass(described.output_type)
        call = self._channel.unary_unary(
            f"/{method}", request_serializer=asked.SerializeToString, response_deserializer=answered.FromString
        )
        answer = call(ParseDict(request, asked()), timeout=20)
        return MessageToDict(answer, preserving_proto_field_name=True)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Reflected]:
    """A client of a collector whose store has two experiments, one of the earlier logger."""
    from tests.collector.builders import LEGACY_LINE
    from tests.collector.builders import serving as serving_here

    log_dir = tmp_path / "store"
    log_dir.mkdir()
    (log_dir / "percentile_experiments.jsonl").write_bytes(LEGACY_LINE)
    with serving_here(log_dir) as client:
        client.record(model="mamba2-4m")
    with collector(log_dir) as (_, address), Reflected(address) as reflected:
        yield reflected


def test_a_client_by_reflection_alone_lists_and_gets(local: Reflected) -> None:
    """No file of this project is needed: the server describes its calls, and answers them."""
    service = "qlog.v1.CollectorService"
    assert service in local.database.get_services()
    listed = local.call(f"{service}/ListExperiments", filter='model = "mamba*"', order_by="number desc")
    assert [found["config"]["model"] for found in listed["experiments"]] == ["mamba2-4m", "mamba-370m"]
    got = local.call(f"{service}/GetExperiment", ref="0")["experiment"]
    assert got["layer_stats"][0]["before_percentile"]["max"] == 156.82
    assert local.call("grpc.health.v1.Health/Check") == {"status": "SERVING"}


def test_a_quantizer_describes_its_calls_too(tmp_path: Path) -> None:
    """Jobs are long-running operations, which the same client can ask for."""
    options = ServeOptions(Listening(), tmp_path, "cpu")
    server = QuantizerServer(options, Settings(tmp_path, None), log=lambda _line: None, worker_main=scripted_worker)
    with ExitStack() as stack, Reflected(f"127.0.0.1:{server.port}") as client:
        stack.callback(server.stop)
        services = client.database.get_services()
        assert {"qlog.v1.QuantizerService", "google.longrunning.Operations"} <= set(services)
        assert client.call("qlog.v1.QuantizerService/ListModels") == {"model_root": str(tmp_path)}
        assert client.call("google.longrunning.Operations/ListOperations") == {}
        with pytest.raises(grpc.RpcError) as caught:
            client.call("qlog.v1.QuantizerService/SubmitExperiment", spec={"model": "nosuch"})
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
