"""Whatever is asked of a quantizer, the answer is a status of its own, and the next call is answered as ever."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qlog.v1 import quantizer_pb2 as pb
from qlog.v1.spec_pb2 import ExperimentSpec

from tests.quantizer.test_job_paths import laid_out, running
from tests.quantizer.test_service import Client

ANSWERS = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS,
}
METHODS = (
    *("qlog.v1.QuantizerService/SubmitExperiment", "qlog.v1.QuantizerService/WatchExperiment"),
    *("qlog.v1.QuantizerService/ListDevices", "qlog.v1.QuantizerService/ListModels"),
    *("google.longrunning.Operations/GetOperation", "google.longrunning.Operations/ListOperations"),
    *("google.longrunning.Operations/CancelOperation", "google.longrunning.Operations/DeleteOperation"),
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    place: Path = laid_out(tmp_path_factory.mktemp("place"))
    with running(place, place / "output") as (_, connected):
        yield connected


def answer(call: Any, request: Any) -> grpc.StatusCode:
    """The status that a call ends with."""
    try:
        answered = call(request, timeout=20)
        if hasattr(answered, "__next__"):
            list(answered)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


_WORDS = (
    "plain",
    "waits.txt",
    "builtin",
    "gutenberg",
    "all",
    "0,1",
    "0.999",
    "auto",
    "ema",
    "cpu",
    "W4A8",
    "../x",
    "a/b",
)
_TEXTS = st.one_of(st.sampled_from(_WORDS), st.text(max_size=40), st.text(min_size=4000, max_size=5000))


def _values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_STRING:
        return _TEXTS.filter(lambda text: not any("\ud800" <= character <= "\udfff" for character in text))
    return st.one_of(st.integers(-3, 20), st.integers(-(2**31), 2**31 - 1))


SPECS = st.fixed_dictionaries(
    {"model": st.one_of(st.just("plain"), _TEXTS)},
    optional={field.name: _values(field) for field in ExperimentSpec.DESCRIPTOR.fields if field.name != "model"},
)


# Specifications are nested: by chance many in a row are larger than Hypothesis likes, which says nothing about them.
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.data_too_large])
@given(options=SPECS)
def test_any_specification_is_taken_or_refused(client: Client, options: dict[str, Any]) -> None:
    """None is an internal error: what is wrong with it is said, field by field."""
    request = pb.SubmitExperimentRequest(spec=ExperimentSpec(**options))
    assert answer(client.quantizer.SubmitExperiment, request) in ANSWERS


@pytest.mark.long
@settings(max_examples=3000, deadline=None)
@given(options=SPECS)
def test_any_of_many_specifications_is_taken_or_refused(client: Client, options: dict[str, Any]) -> None:
    """The same, three thousand times."""
    request = pb.SubmitExperimentRequest(spec=ExperimentSpec(**options))
    assert answer(client.quantizer.SubmitExperiment, request) in ANSWERS


@settings(max_examples=60, deadline=None)
@given(method=st.sampled_from(METHODS), sent=st.binary(max_size=200))
def test_any_bytes_are_answered(client: Client, method: str, sent: bytes) -> None:
    """What is no message of the call's is refused as such."""
    call = client.channel.unary_stream if method.endswith("WatchExperiment") else client.channel.unary_unary
    assert answer(call(f"/{method}", lambda data: data, lambda data: data), sent) in ANSWERS
    assert client.quantizer.ListDevices(pb.ListDevicesRequest(), timeout=10).devices
