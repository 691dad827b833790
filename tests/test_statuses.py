"""A refusal reaches the client, however long what it is about."""

from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from qlog.v1.serving.statuses import bad_request, fitting

from tests.collector.builders import serving


@pytest.mark.parametrize("text", ["short", "x" * 20_000, "模" * 20_000, "\x00\n%" * 9_000])
@pytest.mark.parametrize("violations", [1, 100])
def test_texts_are_cut_where_they_do_not_fit(text: str, violations: int) -> None:
    """Beginnings are kept, code and fields too; what fits is left as it is."""
    request = error_details_pb2.BadRequest()
    for number in range(violations):
        request.MergeFrom(bad_request(f"field{number}", text))
    status = status_pb2.Status(code=3, message=text)
    status.details.add().Pack(request)
    found = fitting(status)
    assert found.code == 3
    assert found.ByteSize() < 8000
    assert found.details[0].Unpack(request)
    assert request.field_violations[0].field == "field0"
    for told in (found.message, request.field_violations[0].description):
        assert text.startswith(told.removesuffix("..."))
        assert len(told) >= min(len(text), 8)
    if violations == 1 and len(text) < 100:
        assert found == status


@pytest.mark.parametrize("query", [{"filter": "x" * 3000 + " = 1"}, {"filter": "模" * 1300 + " = 1"}])
def test_a_long_filter_is_refused_as_what_it_is(query: dict[str, str], tmp_path: Path) -> None:
    """INVALID_ARGUMENT with the field, not an error of the transport."""
    with serving(tmp_path) as client, pytest.raises(grpc.RpcError) as caught:
        client.list(**query)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert rpc_status.from_call(caught.value) is not None


def test_a_long_order_is_refused_as_what_it_is(tmp_path: Path) -> None:
    """The same of other fields."""
    with serving(tmp_path) as client, pytest.raises(grpc.RpcError) as caught:
        client.list(order_by="模" * 3000)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
