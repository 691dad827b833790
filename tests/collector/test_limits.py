"""Everything that arrives is hostile: sizes, counts, depths and tokens are bounded, and work ends with its call."""

import base64
import json
import threading

import grpc
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qlog.v1 import collector_pb2 as wire
from qlog.v1.serving.listening import Listening
from qlog.v1.serving.statuses import shortened

from collector import patience
from collector.errors import GoneError, TooSlowError
from collector.listing import Query
from collector.server import Server
from tests.collector.builders import begin, connected, details, new_id, opened, requests, serving, whole

MIB = 1 << 20
CODES = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


def outcome(call):
    """The status of a call, and what was said; OK and nothing where it was answered."""
    try:
        answer = call()
        list(answer) if hasattr(answer, "__next__") else answer
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


def page_token(now, places=(None, None)):
    query = Query("timestamp > -7d", "", include_running=False, full=False, now=0.0)
    return base64.urlsafe_b64encode(orjson.dumps([query.fingerprint(), now, *places])).decode()


def watch_token(lines, cursors, one=None):
    return base64.urlsafe_b64encode(json.dumps([one, lines, cursors]).encode()).decode()


def listing(**fields):
    return "ListExperiments", wire.ListExperimentsRequest(**fields)


def paged(now, **more):
    return listing(filter="timestamp > -7d", page_token=page_token(now, **more))


def watched(*token):
    return "WatchExperiments", wire.WatchExperimentsRequest(resume_token=watch_token(*token))


HOSTILE = {
    "a filter of 3 MiB": listing(filter="x" * 3 * MIB),
    "an order of 3 MiB": listing(order_by="x" * 3 * MIB),
    "an order of many keys": listing(order_by=",".join(["model"] * 100)),
    "a page of negative size": listing(page_size=-1),
    "a view that is none": listing(view=77),
    "a page token of 3 MiB": listing(page_token="A" * 3 * MIB),
    "a page token of no list": listing(page_token="W10="),
    "a time that is none": paged("nan"),
    "a time without end": paged("inf"),
    "a time before all": paged(-1e300),
    "a time after all": paged(1e300),
    "a place beyond all": paged(1.0, places=[[2**63], None]),
    "a place that is a text": paged(1.0, places=[["x"], None]),
    "a REF of 3 MiB": ("GetExperiment", wire.GetExperimentRequest(ref="z" * 3 * MIB)),
    "a REF of 3 MiB of blanks": ("GetExperiment", wire.GetExperimentRequest(ref=" " * 3 * MIB + "zzzz")),
    "a number beyond all": ("GetExperiment", wire.GetExperimentRequest(ref="9" * 60)),
    "a negative number beyond all": ("GetExperiment", wire.GetExperimentRequest(ref="-" + "9" * 60)),
    "a number in other digits": ("GetExperiment", wire.GetExperimentRequest(ref="\u0663")),
    "no REFs": ("BatchGetExperiments", wire.BatchGetExperimentsRequest()),
    "too many REFs": ("BatchGetExperiments", wire.BatchGetExperimentsRequest(refs=["0"] * 1001)),
    "a comparison of one": ("CompareExperiments", wire.CompareExperimentsRequest(refs=["0"])),
    "a comparison of too many": ("CompareExperiments", wire.CompareExperimentsRequest(refs=["0"] * 65)),
    "a watch from a line beyond all": watched(10**400, {}),
    "a watch from a place beyond all": watched(0, {"a": 10**40}),
    "a watch from a truth": watched(0, {"a": True}),
    "an export from nowhere": ("ExportExperiments", wire.ExportExperimentsRequest(resume_token="\u0661")),
    "an export in no format": ("ExportExperiments", wire.ExportExperimentsRequest(format=9)),
    "too many tags": ("AnnotateExperiment", wire.AnnotateExperimentRequest(ref="0", add_tags=map(str, range(65)))),
    "too many tags less": (
        "AnnotateExperiment",
        wire.AnnotateExperimentRequest(ref="0", remove_tags=map(str, range(700))),
    ),
    "a tag that steers": ("AnnotateExperiment", wire.AnnotateExperimentRequest(ref="0", add_tags=["\x1b[2J"])),
    "a note of 70 KiB": ("AnnotateExperiment", wire.AnnotateExperimentRequest(ref="0", note="x" * 70_000)),
    "an id of 3 MiB": ("GetAppendStatus", wire.GetAppendStatusRequest(experiment_id="\0" * 3 * MIB)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_too_much_is_refused_in_few_words(client, name):
    """A status that blames the request, with words that fit its metadata; nothing else is hurt."""
    client.record()
    method, request = HOSTILE[name]
    code, said = outcome(lambda: getattr(client.stub, method)(request, timeout=20))
    assert code in CODES, said
    assert 0 < len(said.encode()) < 2000
    assert client.get("0").status


def test_a_message_above_the_limit_says_what_to_do(client):
    """RESOURCE_EXHAUSTED with the limit, for single requests and those of streams; gRPC refuses twice that itself."""
    name = new_id()
    for size, words in ((4 * MIB + 1, "at most 4194304 are taken: send less at a time"), (9 * MIB, "larger than max")):
        huge = begin("m" * (size // 2))  # It is in the command too.
        for call in (
            lambda size=size: client.stub.ListExperiments(wire.ListExperimentsRequest(filter="x" * size), timeout=20),
            lambda huge=huge: client.stub.AppendExperiment(requests(name, [huge]), timeout=20),
        ):
            code, said = outcome(call)
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert words in said
    assert client.status(name).committed_offset == 0


METHODS = {method.name: method for method in wire.DESCRIPTOR.services_by_name["CollectorService"].methods}


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("fuzzed")) as client:
        client.record()
        yield client


@given(name=st.sampled_from(sorted(METHODS)), data=st.binary(max_size=200) | st.text(max_size=60).map(str.encode))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_answered_or_refused(fuzzed, name, data):
    """Whatever is sent to whichever call: an answer, or a status that is not the server's own fault."""
    method = METHODS[name]
    path = f"/qlog.v1.CollectorService/{name}"
    kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    call = getattr(fuzzed.channel, kind)(path, request_serializer=None, response_deserializer=None)
    # A watch lasts as long as it is let.
    timeout = 0.2 if name == "WatchExperiments" else 20
    code, said = outcome(lambda: call(iter([data]) if method.client_streaming else data, timeout=timeout))
    watching = name == "WatchExperiments" and code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert code is grpc.StatusCode.OK or code in CODES or watching, said


def test_work_without_a_deadline_has_one(log_dir):
    """A call that brings none ends with DEADLINE_EXCEEDED and says so; one with its own has that, and streams none."""
    with opened(log_dir) as store:
        server = Server(store, Listening(), reflection=False, unary_s=0.0)
        server.start()
        try:
            with connected(server.endpoint) as (stub, _):
                list(stub.AppendExperiment(requests(new_id(), whole())))
                refs = wire.BatchGetExperimentsRequest(refs=["0", "0"])
                with pytest.raises(grpc.RpcError) as caught:
                    stub.BatchGetExperiments(refs)
                assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                assert "give it a deadline" in caught.value.details()
                assert details(caught.value)["ErrorInfo"].reason == "TOO_SLOW"
                assert len(stub.BatchGetExperiments(refs, timeout=30).experiments) == 2
                assert b"".join(part.chunk for part in stub.ExportExperiments(wire.ExportExperimentsRequest()))
        finally:
            server.stop()


def test_a_question_to_the_index_ends_with_its_call(store):
    """SQLite is interrupted in the middle; the index is not taken for damaged, and answers the next question."""
    index = store.index()
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    for limit_s, gone, error in ((0.0, False, TooSlowError), (60.0, True, GoneError)):
        with pytest.raises(error), patience.patience(limit_s, lambda gone=gone: gone), index.reading() as connection:
            connection.execute(endless).fetchone()
        assert not index.unusable()
        assert store.index() is index
        with index.reading() as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_patience_is_of_one_thread_and_of_one_call():
    """What one call may take is nothing to another; outside of calls work goes on for ever."""
    patience.check()
    with patience.patience(60, lambda: True):
        with patience.patience(60, lambda: False):
            patience.check()
        with pytest.raises(GoneError):
            patience.check()
        other = threading.Thread(target=patience.check)
        other.start()
        other.join()
    patience.check()


@given(st.text(max_size=300), st.integers(10, 200))
def test_shortened_texts_fit(text, most):
    """A text is its own beginning, and fits a header of so many bytes."""
    short = shortened(text, most)
    assert short == text or (short.endswith("...") and text.startswith(short[:-3]))
    assert sum(1 if 0x20 <= byte < 0x7F else 3 for byte in short.encode("utf-8", "replace")) <= most
