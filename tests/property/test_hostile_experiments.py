"""Whatever an experiment holds, the collector that took it can show it, in every call that reads."""

import json

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qlog.v1 import collector_pb2 as wire
from qlog.v1 import common_pb2 as pb

from collector.store import LOG_NAME
from tests.collector.builders import details, new_id, requests, serving, whole
from tests.property.strategies import events_of, experiments, int64s

# Names and texts as others may send them: controls, no ASCII, halves of nothing, what JSON and SQL mean something by.
hostile_texts = st.text(max_size=30) | st.sampled_from(
    ["\0", "\x1b[2J\n", "\u202e", "NaN", "-Infinity", "' OR 1=1 --", '"}', "../../etc", "\ufeff", "layer_0." * 40]
)
progress = st.builds(
    lambda phase, done, total, unit: pb.Event(progress=pb.Progress(phase=phase, done=done, total=total, unit=unit)),
    *(hostile_texts, int64s, int64s, hostile_texts),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    log_dir = tmp_path_factory.mktemp("hostile")
    with serving(log_dir) as client:
        client.append(new_id(), whole())
        yield client, log_dir / LOG_NAME


def hostile(events, model, command, told):
    """The events with other words in them, and progress in between."""
    changed = [pb.Event.FromString(event.SerializeToString()) for event in events]
    if changed[0].HasField("begin"):
        changed[0].begin.config.model, changed[0].begin.command = model, command
    return [*changed[:-1], *told, changed[-1]]


def shown_everywhere(server, events):
    client, log = server
    stub, name = client.stub, new_id()
    answers, refusal = [], None
    try:
        answers = list(stub.AppendExperiment(requests(name, events), timeout=30))
    except grpc.RpcError as error:
        refusal = error
    if refusal is not None:
        # With its field; nothing of it is the server's own fault.
        assert refusal.code() is grpc.StatusCode.INVALID_ARGUMENT, refusal.details()
        assert details(refusal)["BadRequest"].field_violations[0].field
        return
    number = str(answers[-1].number)
    full = stub.GetExperiment(wire.GetExperimentRequest(ref=name), timeout=30).experiment
    assert full.experiment_id == name
    line = log.read_bytes().splitlines()[answers[-1].number]
    json.loads(line, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    stub.ListExperiments(wire.ListExperimentsRequest(page_size=5), timeout=30)
    stub.ListExperiments(
        wire.ListExperimentsRequest(filter=f'experiment_id = "{name}"', order_by="duration desc, accuracy"), timeout=30
    )
    compared = stub.CompareExperiments(wire.CompareExperimentsRequest(refs=["0", number]), timeout=30)
    assert len(compared.experiments) == 2
    shown = wire.ExportExperimentsRequest(as_shown=True, filter=f'experiment_id = "{name}"')
    exported = b"".join(part.chunk for part in stub.ExportExperiments(shown, timeout=30))
    assert json.loads(exported)["number"] == answers[-1].number
    ended = list(stub.WatchExperiments(wire.WatchExperimentsRequest(experiment_id=name), timeout=30))[-1]
    assert ended.ended.number == answers[-1].number


CASES = given(experiments, hostile_texts, hostile_texts, st.lists(progress, max_size=3))
QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@CASES
@settings(max_examples=10, deadline=None, suppress_health_check=QUIET)
def test_what_was_taken_can_be_shown(server, experiment, model, command, told):
    """Taken, and then read by get, list, filter, order, compare, export and watch; or refused with the field."""
    shown_everywhere(server, hostile(events_of(experiment), model, command, told))


@pytest.mark.long
@pytest.mark.timeout(1800)
@CASES
@settings(max_examples=500, deadline=None, suppress_health_check=QUIET)
def test_what_was_taken_can_be_shown_at_length(server, experiment, model, command, told):
    """The same, many times."""
    shown_everywhere(server, hostile(events_of(experiment), model, command, told))
