"""Recording never harms an experiment: whatever happens to the collector, the numbers are the same and nothing is lost.

The collectors here are real ones, in processes of their own where they are killed.
"""

import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from quantizer.entry import run_command
from quantizer.events import ExperimentEvent, Finished, LayerMeasured
from quantizer.recorder import Recorder, Recording
from tests.processes import running, serving
from tests.quantizer.conftest import until
from tests.quantizer.runs import numbers, records, run, write_inputs


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_inputs(tmp_path_factory.mktemp("inputs"))[1]


@pytest.fixture(scope="module")
def undisturbed(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The record of the same experiment with nothing in its way."""
    log_dir = tmp_path_factory.mktemp("undisturbed")
    assert run(words, log_dir) == 0
    (record,) = records(log_dir)
    return record


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def collector(log_dir: Path, port: int = 0) -> Any:
    return serving("collector.entry", "serve", "--port", str(port), "--log_dir", str(log_dir))


def test_no_collector_at_all(
    words: list[str], undisturbed: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The experiment completes with one warning; a collector that appears later gets the whole record by a flush."""
    address = f"127.0.0.1:{free_port()}"
    assert run(words, tmp_path / "here", "--collector", address) == 0
    captured = capsys.readouterr()
    assert captured.err.count("warning") == 1
    assert "not yet" in captured.out
    assert run_command(["spool", "flush", "--log_dir", str(tmp_path / "here")]) == 1
    assert address in capsys.readouterr().err
    with collector(tmp_path / "there") as (_, back):
        assert run_command(["spool", "flush", "--log_dir", str(tmp_path / "here"), "--collector", back]) == 0
        assert "sent 1 " in capsys.readouterr().out
        assert run_command(["spool", "status", "--log_dir", str(tmp_path / "here")]) == 0
        assert "nothing waits" in capsys.readouterr().out
    (record,) = records(tmp_path / "there")
    assert numbers(record) == numbers(undisturbed)


Action = Callable[[Recording], None]


@pytest.fixture
def at_the_second_tensor(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Action]]:
    """Calls what is put in the list when a running experiment has measured its second tensor, and sent the first."""
    actions: list[Action] = []
    seen: list[ExperimentEvent] = []
    record = Recording.record

    def interfere(recording: Recording, event: ExperimentEvent) -> None:
        record(recording, event)
        if isinstance(event, LayerMeasured):
            seen.append(event)
            if len(seen) == 2:
                for action in actions:
                    action(recording)

    monkeypatch.setattr(Recording, "record", interfere)
    yield actions
    assert len(seen) > 2


@pytest.fixture
def before_the_end(monkeypatch: pytest.MonkeyPatch) -> list[Action]:
    """Calls what is put in the list when an experiment has told everything but that it is over."""
    actions: list[Action] = []
    record = Recording.record

    def interfere(recording: Recording, event: ExperimentEvent) -> None:
        if isinstance(event, Finished):
            for action in actions:
                action(recording)
        record(recording, event)

    monkeypatch.setattr(Recording, "record", interfere)
    return actions


def acknowledged(recording: Recording) -> int:
    recorder: Recorder = recording._recorder
    rows = [row for row in recorder._spool.experiments() if row.id == recording.experiment_id]
    return rows[0].acknowledged


def test_a_collector_killed_in_the_middle_and_started_again(
    words: list[str], undisturbed: dict[str, Any], tmp_path: Path, at_the_second_tensor: list[Action]
) -> None:
    """Killed with events acknowledged, started again before the end: everything arrives, once."""
    port = free_port()
    with collector(tmp_path / "there", port) as (first, address):

        def kill_and_restart(recording: Recording) -> None:
            until(lambda: acknowledged(recording) >= 3, "the collector has acknowledged some")
            first.send_signal(signal.SIGKILL)
            first.wait()
            second.enter_context(collector(tmp_path / "there", port))

        at_the_second_tensor.append(kill_and_restart)
        with ExitStack() as second:
            assert run(words, tmp_path / "here", "--collector", address) == 0
    (record,) = records(tmp_path / "there")
    assert numbers(record) == numbers(undisturbed)
    assert record["dropped"] == {}


def test_a_collector_killed_in_the_middle_that_stays_away(
    words: list[str],
    undisturbed: dict[str, Any],
    tmp_path: Path,
    at_the_second_tensor: list[Action],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What it had acknowledged and what it missed become one record when the next run finds it."""
    port = free_port()
    with collector(tmp_path / "there", port) as (process, address):

        def kill(recording: Recording) -> None:
            until(lambda: acknowledged(recording) >= 3, "the collector has acknowledged some")
            process.send_signal(signal.SIGKILL)
            process.wait()

        at_the_second_tensor.append(kill)
        assert run(words, tmp_path / "here", "--collector", address) == 0
    assert capsys.readouterr().err.count("warning") == 1
    at_the_second_tensor.clear()
    with collector(tmp_path / "there", port):
        assert run(words, tmp_path / "here", "--collector", address) == 0
        assert run_command(["spool", "flush", "--log_dir", str(tmp_path / "here")]) == 0
    first, second = sorted(records(tmp_path / "there"), key=lambda record: str(record["experiment_id"]))
    assert numbers(first) == numbers(second) == numbers(undisturbed)


def test_a_collector_that_is_started_again_with_nothing_gets_everything(
    words: list[str], undisturbed: dict[str, Any], tmp_path: Path, at_the_second_tensor: list[Action]
) -> None:
    """Its store is lost with what it had acknowledged: the spool has it still, and no event is missing."""
    port = free_port()
    with collector(tmp_path / "there", port) as (first, address):

        def lose_everything(recording: Recording) -> None:
            until(lambda: acknowledged(recording) >= 3, "the collector has acknowledged some")
            first.kill()
            first.wait()
            (tmp_path / "there").rename(tmp_path / "lost")
            second.enter_context(collector(tmp_path / "there", port))

        at_the_second_tensor.append(lose_everything)
        with ExitStack() as second:
            assert run(words, tmp_path / "here", "--collector", address) == 0
    (record,) = records(tmp_path / "there")
    assert numbers(record) == numbers(undisturbed)
    assert record["dropped"] == {}


@pytest.mark.parametrize("moment", ["middle", pytest.param("end", marks=pytest.mark.long)])
@pytest.mark.parametrize("how", [pytest.param(signal.SIGKILL, marks=pytest.mark.long), signal.SIGSTOP])
def test_a_collector_that_is_gone_or_stands_still_is_not_waited_for(
    words: list[str],
    undisturbed: dict[str, Any],
    tmp_path: Path,
    at_the_second_tensor: list[Action],
    before_the_end: list[Action],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    moment: str,
    how: signal.Signals,
) -> None:
    """Nor is the time used up that one which answers would be given at the end. One warning; a flush sends the rest."""
    monkeypatch.setattr("quantizer.recorder.CLOSE_S", 10_000.0)
    with collector(tmp_path / "there") as (process, address):

        def strike(recording: Recording) -> None:
            until(lambda: acknowledged(recording) >= 3, "the collector has acknowledged some")
            process.send_signal(how)

        (at_the_second_tensor if moment == "middle" else before_the_end).append(strike)
        try:
            assert run(words, tmp_path / "here", "--collector", address) == 0
        finally:
            process.send_signal(signal.SIGCONT)
    told = capsys.readouterr()
    assert told.err.count("warning") == 1
    assert "not yet" in told.out
    with collector(tmp_path / "there") as (_, address):
        assert run_command(["spool", "flush", "--log_dir", str(tmp_path / "here"), "--collector", address]) == 0
    (record,) = records(tmp_path / "there")
    assert numbers(record) == numbers(undisturbed)


def test_a_port_that_swallows_packets(
    words: list[str], undisturbed: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A collector that accepts and never answers delays nothing but the end, and that a little."""
    with socket.create_server(("127.0.0.1", 0)) as hole:
        address = f"127.0.0.1:{hole.getsockname()[1]}"
        assert run(words, tmp_path, "--collector", address) == 0
    told = capsys.readouterr()
    assert f"{undisturbed['results']['perplexity']:.4f}" in told.out
    assert told.err.count("warning") == 1


def test_a_host_that_nobody_knows(
    words: list[str], undisturbed: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name that no resolver has an address for is a collector that is away."""
    assert run(words, tmp_path, "--collector", "collector.invalid:50551") == 0
    told = capsys.readouterr()
    assert f"{undisturbed['results']['perplexity']:.4f}" in told.out
    assert told.err.count("warning") == 1
    assert "collector.invalid" in told.err


def test_a_service_that_is_no_collector(
    words: list[str], undisturbed: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An older version, or something else on that port: one warning, the same numbers."""
    from concurrent import futures

    import grpc

    server = grpc.server(futures.ThreadPoolExecutor(2))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert run(words, tmp_path, "--collector", f"127.0.0.1:{port}") == 0
    finally:
        server.stop(None).wait()
    captured = capsys.readouterr()
    assert f"{undisturbed['results']['perplexity']:.4f}" in captured.out
    assert captured.err.count("warning") == 1
    assert "UNIMPLEMENTED" in captured.err


# A program whose files cannot grow beyond so many bytes, as if the disk were full. Torch first: it may write where it
# likes. One that forks ends at once: gRPC does not survive in the child.
CRAMPED = """
import os, resource, sys
from quantizer.surroundings import examine
from {module} import main
os.register_at_fork(before=lambda: os._exit(99))
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
sys.exit(main(sys.argv[1:]))
"""


def test_a_collector_whose_disk_is_full(
    words: list[str], undisturbed: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says so, and acknowledges nothing that it has not stored; with room again it gets the whole record."""
    store = ["--log_dir", str(tmp_path / "there")]
    program = CRAMPED.format(module="collector.entry", limit=100_000)
    with serving("-c", program, "serve", "--port", "0", *store) as (_, address):
        assert run(words, tmp_path / "here", "--collector", address) == 0
    told = capsys.readouterr()
    assert told.err.count("warning") == 1
    assert "not yet" in told.out
    with collector(tmp_path / "there") as (_, address):
        assert run_command(["spool", "flush", "--log_dir", str(tmp_path / "here"), "--collector", address]) == 0
    (record,) = records(tmp_path / "there")
    assert numbers(record) == numbers(undisturbed)
    assert record["dropped"] == {}


def test_a_full_disk(words: list[str], undisturbed: dict[str, Any], tmp_path: Path) -> None:
    """With a spool that cannot grow, the events go to the collector from memory: same numbers, a whole record."""
    with collector(tmp_path / "there") as (_, address):
        program = CRAMPED.format(module="quantizer.entry", limit=12_000)
        with running("-c", program, *words, "--log_dir", str(tmp_path / "here"), "--collector", address) as process:
            out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert err.count("warning") == 1, err
        assert "in memory" in err
        assert "number 0" in out
    (record,) = records(tmp_path / "there")
    assert numbers(record) == numbers(undisturbed)


@contextmanager
def calibrating(words: list[str], *more: str) -> Iterator["subprocess.Popen[str]"]:
    """A run in a process of its own that is in the middle of its calibration, and would be for long."""
    with running("quantizer.entry", *words, "--calib_data_num", "512", *more) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("calibrate"):
                break
        yield process


def test_a_quantizer_killed_in_the_middle_is_told_as_failed(words: list[str], tmp_path: Path) -> None:
    """kill -9 of the quantizer leaves a spool; a flush ends its record, with what was measured until then."""
    log_dir = str(tmp_path / "here")
    with calibrating(words, "--log_dir", log_dir, "--collector", f"127.0.0.1:{free_port()}"):
        pass  # It is killed here.
    with collector(tmp_path / "there") as (_, address):
        assert run_command(["spool", "flush", "--log_dir", log_dir, "--collector", address]) == 0
    (record,) = records(tmp_path / "there")
    assert record["status"] == "FAILED"
    assert record["error"] == "the process ended without finishing"
    assert record["model"]["family"] == "mamba1"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_is_recorded_as_cancelled(
    number: signal.Signals, code: int, words: list[str], tmp_path: Path
) -> None:
    """Ctrl-C and SIGTERM end the experiment, its record says so, and no traceback is shown."""
    with calibrating(words, "--log_dir", str(tmp_path)) as process:
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err
    (record,) = records(tmp_path)
    assert record["status"] == "CANCELLED"


def test_two_runs_share_a_local_store_though_the_first_serves_it(
    words: list[str], undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """Whoever holds the store serves it; when it ends, another takes over. Both records are whole."""
    command = ["quantizer.entry", *words, "--log_dir", str(tmp_path)]
    with running(*command) as first, running(*command) as second:
        processes = first, second
        said = [process.communicate(timeout=120) for process in processes]
    for process, (out, err) in zip(processes, said, strict=True):
        assert process.returncode == 0, err
        assert "warning" not in err, err
        assert "Recorded         number" in out
    found = records(tmp_path)
    assert len(found) == 2
    for record in found:
        assert numbers(record) == numbers(undisturbed)
