import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from qlog.v1 import common_pb2 as pb

from client.api import CollectorApi
from client.errors import QlogError, StreamLostError
from client.events import WatchBatch
from client.follow import Patience, follow
from client.live import LiveLines
from client.settings import CollectorSession
from client.values import Progress
from tests.client import builders
from tests.client.builders import IDS
from tests.client.conftest import Ran, restarted
from tests.client.fakes import FakeCollector

Qlog = Callable[..., Ran]
RUN = "0199ffff-0001-7c11-9a52-3f1c8d0e4b67"


@pytest.fixture
def run(collector: FakeCollector) -> FakeCollector:
    """A collector with one run that has sent all its events, and whose end is told to watchers."""
    collector.running = {RUN: builders.run_events()}
    collector.ends = {RUN: builders.experiment(5, experiment_id=RUN)}
    return collector


def test_a_run_is_told_from_its_start_to_its_end(qlog: Qlog, run: FakeCollector) -> None:
    """Configuration, phases, each tensor, results, the end; in plain lines; exit code 0."""
    ran = qlog("watch", RUN[:8], "--collector", run.endpoint)
    lines = ran.out.splitlines()
    assert (ran.code, ran.err) == (0, "")
    assert lines[0] == "mamba-2m W8A8 alpha default"
    assert lines[1] == "calibrate 0/2 documents"
    assert lines[2] == "calibrate 2/2 documents"
    assert lines[3].startswith("layer_0.x_proj:input: range before 284.17 [-127.35, 156.82]")
    assert "0.0410 %" in lines[3]
    assert "gutenberg_cloze acc 0.5205 ± 0.0113" in lines[4]
    assert lines[5].startswith("COMPLETED as number 5")
    assert len(lines) == 6


def test_json_has_an_object_a_line(qlog: Qlog, run: FakeCollector) -> None:
    """Each event with its kind and position, in the record's words, and the end as a list would have it."""
    ran = qlog("watch", RUN, "--format", "json", "--collector", run.endpoint)
    events = [json.loads(line) for line in ran.out.splitlines()]
    assert [event["event"] for event in events] == [
        *("begin", "progress", "progress", "layer_stats", "evaluation_result", "finish", "ended"),
    ]
    assert [event["offset"] for event in events[:-1]] == [0, 1, 3, 4, 5, 6]
    assert events[3]["before_percentile"]["max"] == 156.82
    assert (events[-1]["number"], events[-1]["status"]) == (5, "COMPLETED")


@pytest.mark.parametrize(
    ("ref", "code", "word"), [("0", 0, "COMPLETED"), ("1", 0, "number 1"), ("3", 1, "boom"), ("2", 1, "CORRUPT")]
)
def test_one_that_has_ended_is_told_at_once(qlog: Qlog, run: FakeCollector, ref: str, code: int, word: str) -> None:
    """No stream is needed for it; one that failed makes the command fail."""
    ran = qlog("watch", ref, "--collector", run.endpoint)
    assert ran.code == code
    assert word in ran.out
    assert ran.err.count("\n") == code


def test_sizes_that_become_known_are_told_in_short(qlog: Qlog, run: FakeCollector) -> None:
    """Megabytes for people; whole numbers in JSON."""
    facts = pb.Facts(model_size_bytes=builders.fields({"before": 9187584, "after": 4712208}))
    run.running[RUN].insert(-1, pb.Event(facts=facts))
    where = ["watch", RUN, "--collector", run.endpoint]
    assert "\nmodel_size_bytes: before: 9.19 MB, after: 4.71 MB\n" in qlog(*where).out
    assert '"before": 9187584' in qlog(*where, "--format", "json").out


def test_a_number_is_a_line_whatever_runs(qlog: Qlog, run: FakeCollector) -> None:
    """-1 is the last line, told at once, although something runs; the help says so."""
    ran = qlog("watch", "-1", "--collector", run.endpoint)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("COMPLETED as number 4")
    assert "-1 for the last line of the log" in " ".join(qlog("watch", "--help").out.split())


@pytest.mark.parametrize(("count", "said"), [(0, "nothing runs"), (1, "1 experiment runs"), (2, "2 experiments run")])
def test_without_a_ref_it_is_said_what_runs(qlog: Qlog, run: FakeCollector, count: int, said: str) -> None:
    """Before anything is waited for; who watches knows whether there is something to see."""
    run.running = {IDS[place]: builders.run_events() for place in range(count)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("client.cli.watch._watch", lambda *_: None)
        ran = qlog("watch", "--collector", run.endpoint)
    assert ran.err == f"qlog: watching {run.endpoint}, where {said} now; end with Ctrl-C\n"


def test_a_run_that_fails_fails_the_command(qlog: Qlog, run: FakeCollector) -> None:
    """Exit code 1, with the reason."""
    run.ends[RUN] = builders.experiment(5, experiment_id=RUN, status=3, error="out of memory", results=None)
    ran = qlog("watch", RUN, "--collector", run.endpoint)
    assert ran.code == 1
    assert ran.err == "qlog: experiment #5 FAILED: out of memory\n"


def test_other_forms_are_wrong_usage(qlog: Qlog, run: FakeCollector) -> None:
    """Lines have no CSV."""
    assert qlog("watch", RUN, "--format", "csv", "--collector", run.endpoint).code == 2


def test_one_that_nobody_knows(qlog: Qlog, run: FakeCollector) -> None:
    """The answer says where those are that have not begun."""
    ran = qlog("watch", "0199dead", "--collector", run.endpoint)
    assert ran.code == 1
    assert "qlog jobs" in ran.err
    assert "qlog jobs" not in qlog("watch", "99", "--collector", run.endpoint).err


def connector(
    endpoint: Callable[[], str], *, alone: bool = False
) -> Callable[[], AbstractContextManager[CollectorSession]]:
    @contextmanager
    def connect() -> Iterator[CollectorSession]:
        with CollectorApi(endpoint()) as api:
            yield CollectorSession(api, alone)

    return connect


def followed(
    endpoint: str, sleep: Callable[[float], None], on_lost: Callable[[QlogError], None] = lambda _: None
) -> list[WatchBatch]:
    """All that is told of the run at an endpoint; `sleep`: instead of waiting."""
    patience = Patience(sleep=sleep)
    connect = connector(lambda: endpoint)
    return list(follow(connect, RUN, on_lost=on_lost, on_alone=lambda: None, patience=patience))


def kinds(batches: list[WatchBatch]) -> list[str]:
    return [event.kind for batch in batches for event in batch.events]


ALL_KINDS = ["begin", "progress", "progress", "layer_stats", "evaluation_result", "finish"]


def test_a_watch_goes_on_where_it_was_cut_off(run: FakeCollector) -> None:
    """Over a restart of the collector every event is told once, by token."""
    run.cut_after = 2
    lost: list[QlogError] = []

    def sleep(_seconds: float) -> None:
        run.cut_after = None

    assert kinds(followed(run.endpoint, sleep, lost.append)) == ALL_KINDS
    assert [request.resume_token for request in run.requests] == ["", "4"]
    assert lost == []


def test_a_restarted_collector_is_found_again(run: FakeCollector) -> None:
    """While it is away one is told once, and then it goes on."""
    run.cut_after = 1
    away: list[float] = []
    lost: list[QlogError] = []
    after = restarted(run)
    opened: list[FakeCollector] = []

    def sleep(seconds: float) -> None:
        away.append(seconds)
        if len(away) == 1:
            run.stop()
        if len(away) == 3:
            opened.append(after.__enter__())

    try:
        batches = followed(run.endpoint, sleep, lost.append)
    finally:
        after.__exit__(None, None, None)
    assert kinds(batches) == ALL_KINDS
    assert len(lost) == 1
    assert opened[0].requests[0].resume_token == "2"
    assert away == sorted(away)


def test_a_server_that_replays_is_not_told_twice(run: FakeCollector) -> None:
    """A collector that forgot the token begins anew; positions tell what is known already."""
    run.cut_after = 2

    def forget(_seconds: float) -> None:
        run.cut_after = None
        run.running = {RUN: builders.run_events()}

    class Forgetful(CollectorApi):
        def watch(self, experiment_id: str = "", resume_token: str = "", timeout_s: float | None = None):  # type: ignore[no-untyped-def]
            return super().watch(experiment_id, "", timeout_s)

    @contextmanager
    def connect() -> Iterator[CollectorSession]:
        with Forgetful(run.endpoint) as api:
            yield CollectorSession(api, alone=False)

    batches = list(follow(connect, RUN, on_lost=lambda _: None, on_alone=lambda: None, patience=Patience(sleep=forget)))
    assert kinds(batches) == ALL_KINDS


def test_patience_ends(run: FakeCollector) -> None:
    """A collector that stays away is given up, with the reason."""
    endpoint = run.endpoint
    run.stop()
    waited: list[float] = []
    patience = Patience(give_up_s=3, sleep=waited.append)
    with pytest.raises(StreamLostError, match="is lost"):
        list(follow(connector(lambda: endpoint), RUN, on_lost=lambda _: None, on_alone=lambda: None, patience=patience))
    assert 3 <= sum(waited) <= 3 + patience.longest_s


def test_a_store_that_nobody_writes_to_is_looked_at_again(run: FakeCollector) -> None:
    """A local store without a writer is opened anew until a run writes to it, and this is said once."""
    del run.ends[RUN]
    run.running[RUN] = run.running[RUN][:2]
    alone: list[bool] = []

    def sleep(_seconds: float) -> None:
        if len(run.requests) == 2:
            run.running[RUN] = builders.run_events()
            run.ends[RUN] = builders.experiment(5, experiment_id=RUN)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("client.follow.ALONE_S", 0.1)
        batches = list(
            follow(
                connector(lambda: run.endpoint, alone=True),
                RUN,
                on_lost=lambda _: None,
                on_alone=lambda: alone.append(True),
                patience=Patience(sleep=sleep),
            )
        )
    assert kinds(batches) == ALL_KINDS
    assert alone == [True]


def test_all_experiments_are_watched_without_a_ref(run: FakeCollector) -> None:
    """Events of several come with their ids, and the end of one is not the end of the watch."""
    other = IDS[0]
    run.running[other] = builders.run_events()[:2]
    batches = follow(connector(lambda: run.endpoint), "", on_lost=lambda _: None, on_alone=lambda: None)
    seen = [next(batches) for _ in range(6)]
    batches.close()  # type: ignore[attr-defined]
    assert [batch.experiment_id for batch in seen] == [RUN] * 5 + [other]
    assert seen[4].ended is not None


def test_a_stream_that_breaks_is_told_from_a_refusal(run: FakeCollector) -> None:
    """Only what may pass is looked for again."""
    run.cut_after = 0
    with CollectorApi(run.endpoint) as api, pytest.raises(StreamLostError):
        list(api.watch(RUN))


class Terminal:
    """A stream that says it is one."""

    def __init__(self, *, terminal: bool) -> None:
        self.text = ""
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""


def test_progress_changes_in_place_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes one line that the next news replace, and is cut to the terminal's width."""
    monkeypatch.setenv("COLUMNS", "20")
    terminal = Terminal(terminal=True)
    lines = LiveLines(terminal)  # type: ignore[arg-type]  # what it uses of a stream is there
    lines.progress("a", Progress("p", 1, 9, ""), "模型" * 20)
    lines.progress("a", Progress("p", 2, 9, ""), "p 2/9")
    lines.line("done")
    lines.close()
    assert terminal.text == "模型" * 4 + "模" + "\r\x1b[Kp 2/9" + "\r\x1b[Kdone\n"


def test_progress_is_thinned_out_elsewhere() -> None:
    """Each phase at its start, tenths and end; each source by itself; no control characters."""
    stream = Terminal(terminal=False)
    lines = LiveLines(stream)  # type: ignore[arg-type]  # what it uses of a stream is there
    for done in range(101):
        lines.progress("a", Progress("calibrate", done, 100, ""), f"a{done}")
    lines.progress("b", Progress("calibrate", 100, 100, ""), "b100")
    lines.close()
    assert stream.text.split() == [f"a{done}" for done in range(0, 101, 10)] + ["b100"]
