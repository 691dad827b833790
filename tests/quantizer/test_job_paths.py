"""What the jobs of others may read and write: nothing outside two directories, whatever they name."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from qlog.v1 import quantizer_pb2 as pb
from qlog.v1.serving.listening import Listening

from quantizer.job import JobState
from quantizer.model_list import list_models
from quantizer.serve import QuantizerServer, ServeOptions
from quantizer.settings import Settings
from tests.quamba.checkpoints import small_config, write_checkpoint
from tests.quantizer.conftest import until
from tests.quantizer.fake_collector import FakeCollector
from tests.quantizer.fake_workers import scripted_worker
from tests.quantizer.test_service import Client


def laid_out(place: Path) -> Path:
    """A directory with the roots `models` and `output`, things beside them, and ways from the one to the other."""
    models, output, outside = place / "models", place / "output", place / "outside"
    for directory in (models, output, outside):
        directory.mkdir()
    (outside / "text.txt").write_text("secret")
    write_checkpoint(outside / "model", small_config("mamba1"))
    for name in ("plain", "waits", "linked-weights", "linked-config", "piped-config", "swapped"):
        write_checkpoint(models / name, small_config("mamba1"))
    for model, file in (("linked-weights", "model.safetensors"), ("linked-config", "config.json")):
        (models / model / file).unlink()
        (models / model / file).symlink_to(outside / "model" / file)
    (models / "piped-config" / "config.json").unlink()
    os.mkfifo(models / "piped-config" / "config.json")
    os.mkfifo(models / "pipe.txt")
    (models / "text.txt").write_text("allowed " * 1000)
    (models / "directory.txt").mkdir()
    (models / "link.txt").symlink_to(outside / "text.txt")
    (models / "relative.txt").symlink_to("../outside/text.txt")
    (models / "zeros.txt").symlink_to("/dev/zero")
    (models / "self.txt").symlink_to("self.txt")
    (models / "door").symlink_to(outside)
    (models / "again").symlink_to(models / "plain")
    (output / "door").symlink_to(outside)
    (models / "\uff0e\uff0e").mkdir()  # Two full-width dots: a name like any other.
    return place


@contextmanager
def running(place: Path, output: Path | None) -> Iterator[tuple[QuantizerServer, Client]]:
    """A quantizer with these roots, and a client of it."""
    options = ServeOptions(Listening(), place / "models", "cpu", output)
    with FakeCollector() as collector:
        settings = Settings(place / "logs", collector.address)
        server = QuantizerServer(options, settings, log=lambda _line: None, worker_main=scripted_worker)
        client = Client(server.port)
        try:
            yield server, client
        finally:
            client.channel.close()
            server.stop()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For tests that change nothing in it."""
    return laid_out(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def client(place: Path) -> Iterator[Client]:
    """Of a quantizer that runs no job."""
    with running(place, place / "output") as (_, connected):
        yield connected


def refused_fields(client: Client, model: str, **options: Any) -> set[str]:
    """The fields that a submission is refused for."""
    with pytest.raises(grpc.RpcError) as caught:
        client.submit(model, **options)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "secret" not in caught.value.details()
    status = rpc_status.from_call(caught.value)
    assert status is not None
    request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(request) for detail in status.details)
    return {violation.field for violation in request.field_violations}


HOSTILE = (
    "../outside/text.txt",
    "plain/../../outside/text.txt",
    "./././../outside/text.txt",
    "door/text.txt",
    "again/../../outside/text.txt",
    "link.txt",
    "relative.txt",
    "zeros.txt",
    "self.txt",
    "pipe.txt",
    "directory.txt",
    "/dev/zero",
    "/dev/stdin",
    "/proc/self/environ",
    "//etc/passwd",
    "~root/.profile",
    "text.txt\0",
    "text.txt\n",
    "..\u2215outside\u2215text.txt",  # A division slash is no separator.
    "\uff0e\uff0e/outside/text.txt",
    "\u202etxt.txet",
    "x" * 5000,
    "/".join(["x"] * 500),
    "a/" * 200 + "../" * 200 + "../outside/text.txt",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_data_is_read_outside_the_model_root(client: Client, name: str) -> None:
    """Refused where it is submitted, for calibration and for perplexity, with the field."""
    options = {"calib_data": name, "eval_ppl": True, "ppl_dataset": name}
    assert {"spec.calib_data", "spec.ppl_dataset"} <= refused_fields(client, "plain", **options)


@pytest.mark.parametrize(
    "name",
    [
        *("../outside/model", "door/model", "/etc", "/", "..", "linked-weights", "linked-config", "piped-config"),
        *("\uff0e\uff0e/outside/model", "text.txt", "pipe.txt", "plain/config.json", "plain\0", "x" * 5000),
    ],
)
def test_no_model_is_read_outside_the_model_root(client: Client, name: str) -> None:
    """Nor one whose files are links that lead out, nor one that would be waited for for ever."""
    assert refused_fields(client, name) == {"spec.model"}


@pytest.mark.parametrize(
    "name", ["../outside", "door", "door/deeper", "/tmp", "..", "../models", "plain/../../outside", "x" * 5000, "a\0"]
)
def test_nothing_is_written_outside_the_output_root(client: Client, place: Path, name: str) -> None:
    """Not even below the model root."""
    assert refused_fields(client, "plain", pretrained_dir=name) == {"spec.pretrained_dir"}
    assert sorted(path.name for path in (place / "outside").iterdir()) == ["model", "text.txt"]


def test_what_is_inside_is_taken(tmp_path: Path) -> None:
    """Relative or absolute, by links that stay inside, and written below the output root."""
    place = laid_out(tmp_path)
    with running(place, place / "output") as (server, client):
        name = client.submit(
            "again",
            calib_data=str(place / "models" / "text.txt"),
            eval_ppl=True,
            ppl_dataset="plain/../text.txt",
            pretrained_dir="kept/deeper",
        )
        (job,) = server.jobs._jobs.values()
        assert job.config.model_path == str(place / "models" / "plain")
        assert job.config.artifacts == str(place / "output" / "kept" / "deeper")
        assert client.wait(name).HasField("response")


def test_what_becomes_a_link_while_jobs_wait_is_not_followed(tmp_path: Path) -> None:
    """Paths are looked at again when a job begins, which fails alone."""
    place = laid_out(tmp_path)
    models, output, outside = place / "models", place / "output", place / "outside"
    for name in ("other", "third"):
        write_checkpoint(models / name, small_config("mamba1"))
    (output / "kept").mkdir()
    with running(place, output) as (server, client):
        first = client.submit("waits")
        until(lambda: next(iter(server.jobs._jobs.values())).state is JobState.RUNNING, "the first job runs")
        swapped = {
            models / "swapped": (outside / "model", client.submit("swapped")),
            models / "other" / "model.safetensors": (outside / "model" / "model.safetensors", client.submit("other")),
            models / "text.txt": (outside / "text.txt", client.submit("third", calib_data="text.txt")),
            output / "kept": (outside, client.submit("third", pretrained_dir="kept")),
        }
        last = client.submit("plain")
        for number, (path, (target, _)) in enumerate(swapped.items()):
            path.rename(place / f"before-{number}")
            path.symlink_to(target)
        client.cancel(first)
        for path, (_, name) in swapped.items():
            assert path.name in client.wait(name).error.message
        assert client.wait(last).HasField("response")


def test_without_an_output_root_jobs_keep_nothing(place: Path) -> None:
    """They are told which option would let them."""
    with running(place, None) as (_, client), pytest.raises(grpc.RpcError, match="--output_root"):
        client.submit("plain", pretrained_dir="kept")


def test_models_that_no_job_could_use_are_not_listed(client: Client, place: Path) -> None:
    """Their files are not even opened: a pipe would be waited for for ever, a link would tell what is outside."""
    models = client.quantizer.ListModels(pb.ListModelsRequest(), timeout=10).models
    assert [model.name for model in models] == ["plain", "swapped", "waits"]
    assert [model.name for model in list_models(place / "outside")] == ["model"]
