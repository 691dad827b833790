import socket
import time
from collections.abc import Callable, Iterator

import grpc
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2

from client import errors, rpc
from client.api import CollectorApi
from client.quantizer_api import QuantizerApi
from tests.client.conftest import Ran
from tests.client.fakes import FakeCollector, FakeQuantizer


def test_every_status_has_an_error() -> None:
    """The table from statuses to errors is total."""
    assert set(rpc.ERRORS) == set(grpc.StatusCode)


def test_every_error_is_a_documented_one() -> None:
    """The tree in the docstring names every class, and `__all__` too."""
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert classes == set(errors.__all__)
    assert errors.__doc__ is not None
    assert all(name in errors.__doc__ for name in classes)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.NOT_FOUND, errors.NotFoundError),
        (grpc.StatusCode.INVALID_ARGUMENT, errors.InvalidRequestError),
        (grpc.StatusCode.UNAUTHENTICATED, errors.AccessError),
        (grpc.StatusCode.DATA_LOSS, errors.RefusedError),
        (grpc.StatusCode.INTERNAL, errors.ServerError),
        (grpc.StatusCode.UNAVAILABLE, errors.RefusedError),
        (grpc.StatusCode.UNIMPLEMENTED, errors.RefusedError),
    ],
)
def test_what_a_server_says_reaches_the_user(
    collector: FakeCollector, code: grpc.StatusCode, kind: type[errors.QlogError]
) -> None:
    """The server's own words are in the error, whatever its status."""
    collector.fail = (code, "the words\nof the server")
    with CollectorApi(collector.endpoint) as api, pytest.raises(kind, match="the words of the server"):
        api.get("0", full=False)


def test_details_are_told_in_words(collector: FakeCollector) -> None:
    """Fields of a BadRequest that the message leaves out are named, and when to try again."""
    bad = error_details_pb2.BadRequest(
        field_violations=[error_details_pb2.BadRequest.FieldViolation(field="page_size", description="is -1")]
    )
    again = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=5))
    collector.fail = (grpc.StatusCode.INVALID_ARGUMENT, "no such page", bad, again)
    with CollectorApi(collector.endpoint) as api, pytest.raises(errors.InvalidRequestError) as caught:
        api.page(page_size=1)
    assert str(caught.value) == "no such page; page_size: is -1; try again in 5 s"


def test_queries_are_tried_again(collector: FakeCollector) -> None:
    """A query that finds the server unavailable is made again; a call that changes something is made once."""
    collector.fail = (grpc.StatusCode.UNAVAILABLE, "draining")
    with CollectorApi(collector.endpoint) as api, pytest.raises(errors.RefusedError):
        api.get("0", full=False)
    assert len(collector.requests) > 1


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("verb", [["list"], ["show", "0"], ["compare", "0", "1"], ["watch"], ["watch", "0"]])
def test_an_endpoint_where_nobody_is(qlog: Callable[..., Ran], closed_port: int, verb: list[str]) -> None:
    """One line that names the endpoint and what to do, and exit code 1."""
    ran = qlog(*verb, "--collector", f"127.0.0.1:{closed_port}")
    assert ran.code == 1
    assert ran.out == ""
    assert ran.err.count("\n") == 1
    assert f"127.0.0.1:{closed_port}" in ran.err
    assert "collector serve" in ran.err


@pytest.mark.parametrize("verb", [["jobs"], ["cancel", "abc"], ["submit", "m"], ["submit", "m", "--wait"]])
def test_a_quantizer_where_nobody_is(qlog: Callable[..., Ran], closed_port: int, verb: list[str]) -> None:
    """The same for the commands that ask a quantizer."""
    ran = qlog(*verb, "--quantizer", f"127.0.0.1:{closed_port}")
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert "quantizer serve" in ran.err


def test_a_port_that_swallows_everything(qlog: Callable[..., Ran], silent_port: int) -> None:
    """A connection that leads nowhere is given up long before the deadline of the call."""
    ran = qlog("list", "--collector", f"127.0.0.1:{silent_port}")
    assert ran.code == 1
    # Not "did not answer in time": that is what the deadline says.
    assert "no collector answers" in ran.err


def test_an_answer_that_does_not_come(qlog: Callable[..., Ran], collector: FakeCollector) -> None:
    """A server that is there but does not answer runs into the deadline."""
    collector._called = lambda *_: time.sleep(2)  # type: ignore[method-assign]
    ran = qlog("list", "--collector", collector.endpoint, "--timeout", "0.2")
    assert ran.code == 1
    assert "--timeout" in ran.err


def test_another_program_is_told_from_a_collector(quantizer: FakeQuantizer) -> None:
    """A server without the service is named as what it is not."""
    with CollectorApi(quantizer.endpoint) as api, pytest.raises(errors.RefusedError, match="is no collector"):
        api.get("0", full=False)


def test_large_experiments_are_received(collector: FakeCollector) -> None:
    """An answer far above gRPC's default limit of 4 MiB arrives."""
    from tests.client import builders

    other = builders.fields({"blob": "x" * (8 << 20)})
    collector.experiments[0] = builders.experiment(0, other=other)
    with CollectorApi(collector.endpoint) as api:
        assert len(api.get("0", full=True).record["blob"]) == 8 << 20


def test_jobs_are_read_page_by_page(quantizer: FakeQuantizer) -> None:
    """All pages of operations are fetched."""
    from tests.client.builders import IDS

    for experiment_id in IDS[:5]:
        quantizer.add(experiment_id, 1)
    with QuantizerApi(quantizer.endpoint) as api:
        assert [job.experiment_id for job in api.jobs()] == list(IDS[:5])
