"""WatchExperiments, through a real server."""

import grpc
from qlog.v1 import common_pb2 as pb

from collector.store import LOG_NAME
from tests.collector.builders import (
    LEGACY_LINE,
    begin,
    finish,
    new_id,
    refused,
    result,
    stats,
    whole,
)


def watched(responses) -> tuple[list[str], list]:
    """The kinds of all events of a watch, and the experiments that ended."""
    kinds, ended = [], []
    for response in responses:
        kinds += [event.WhichOneof("event") for event in response.events]
        if response.HasField("ended"):
            ended.append(response.ended)
    return kinds, ended


def test_a_watcher_gets_what_was_sent_before_then_what_comes_then_the_end(client):
    """Every event once, in order, the last ones too, then the experiment with its number."""
    experiment_id = new_id()
    client.append(experiment_id, [begin(), stats("a")])
    watch = client.watch(experiment_id=experiment_id[:8])
    first = next(watch)
    assert (first.offset, len(first.events)) == (0, 2)
    client.append(experiment_id, [stats("b"), result(0.5), finish()], offset=2)
    kinds, (ended,) = watched(watch)
    assert kinds == ["layer_stats", "evaluation_result", "finish"]
    assert (ended.number, ended.status, ended.layer_stats_count) == (0, pb.EXPERIMENT_STATUS_COMPLETED, 2)


def test_a_watch_goes_on_from_its_token(client):
    """After a broken connection nothing is repeated and nothing is missed, in the middle of a batch too."""
    experiment_id = new_id()
    client.append(experiment_id, [begin(), stats("a")])
    watch = client.watch(experiment_id=experiment_id)
    token = next(watch).resume_token
    watch.cancel()
    client.append(experiment_id, [stats("b")], offset=2)
    again = client.watch(experiment_id=experiment_id, resume_token=token)
    response = next(again)
    assert (response.offset, [event.layer_stats.name for event in response.events]) == (2, ["b"])
    again.cancel()
    client.append(experiment_id, [finish()], offset=3)
    kinds, (ended,) = watched(client.watch(experiment_id=experiment_id, resume_token=token))
    assert (kinds, ended.number) == (["layer_stats", "finish"], 0)
    _, found = refused(list, client.watch(resume_token=token))
    assert found["BadRequest"].field_violations[0].field == "resume_token"
    for made_up in ("x", "bnVsbA==", "W251bGwsIm4iLHt9XQ=="):
        refused(list, client.watch(resume_token=made_up))


def test_watching_what_has_ended_ends_at_once(client, log_dir):
    """By number, id, and also for a line that has no id."""
    experiment_id = client.record()
    with (log_dir / LOG_NAME).open("ab") as file:
        file.write(LEGACY_LINE)
    for ref, number in (("0", 0), (experiment_id, 0), ("-1", 1)):
        kinds, (ended,) = watched(client.watch(experiment_id=ref))
        assert (kinds, ended.number) == ([], number)
    refused(list, client.watch(experiment_id="7"), code=grpc.StatusCode.NOT_FOUND)


def test_watching_everything(client):
    """All that run now or begin later, each one's events complete and in order, each one's end; none from before."""
    client.record()
    early = new_id()
    client.append(early, [begin()])
    watch = client.watch()
    assert next(watch).experiment_id == early
    late = [client.record(tensors=4) for _ in range(3)]
    client.append(early, [finish()], offset=1)
    offsets: dict[str, int] = {early: 1}
    ended: list[str] = []
    for response in watch:
        assert response.offset == offsets.get(response.experiment_id, 0)
        offsets[response.experiment_id] = response.offset + len(response.events)
        if response.HasField("ended"):
            ended.append(response.experiment_id)
            if len(ended) == 4:
                break
    assert ended == [*late, early]
    assert offsets == {early: 2, **dict.fromkeys(late, len(whole(tensors=4)))}
    token = response.resume_token
    watch.cancel()
    while_away = client.record()
    _, (missed,) = watched([next(r for r in client.watch(resume_token=token) if r.HasField("ended"))])
    assert missed.experiment_id == while_away


def test_slow_watchers_do_not_hold_up_senders(client):
    """Watchers that never read cost the sender nothing, and a megabyte of events waits in no queue for them."""
    watchers = [client.watch() for _ in range(20)]
    text = "x" * 60_000
    events = [begin(), *(pb.Event(progress=pb.Progress(phase="p", unit="u", done=i)) for i in range(3))]
    bulky = stats()
    bulky.layer_stats.reorder.definition = text
    experiment_id = new_id()
    answers = client.append(experiment_id, [*events, *[bulky] * 200, finish()], size=20)
    assert answers[-1].number == 0
    assert client.server.gate.streams()[0] >= 20
    for watch in watchers:
        watch.cancel()
    while client.server.gate.streams()[0]:
        client.list()
    assert not client.server.store.watchers._watchers
