"""Recording never harms an experiment: whatever happens to the collector, the numbers are the same and nothing is lost.

The collectors here are real ones, in processes of their own where they are killed. `test_secured` has those that refuse
a token or a certificate, `test_disturbed` what happens to the quantizer itself.
"""

import json
import signal
import socket
from concurrent import futures
from contextlib import ExitStack

import grpc
import pytest

from client.entry import main as qlog
from quantizer.entry import run_command
from tests.integration.conftest import Case
from tests.integration.moments import Moments, collector, free_port
from tests.processes import serving
from tests.quantizer.conftest import until
from tests.quantizer.runs import numbers, records


def test_no_collector_at_all(case: Case) -> None:
    """The experiment completes with one warning; a collector that appears later gets the whole record by a flush."""
    address = f"127.0.0.1:{free_port()}"
    assert address in case.run_away(address)
    code, _, err = case.flush()
    assert (code, address in err) == (1, True)
    with collector(case.there) as (_, back):
        assert case.flush(back)[:2] == (0, "sent 1 experiment\n")
        assert run_command(["spool", "status", "--log_dir", str(case.here)]) == 0
        assert "nothing waits" in case.capture.readouterr().out
    case.check()


def test_a_collector_killed_in_the_middle_and_started_again(case: Case, moments: Moments) -> None:
    """Killed with events acknowledged, started again before the end: everything arrives, once."""
    port = free_port()
    with ExitStack() as second, collector(case.there, port) as (first, address):

        def kill_and_restart() -> None:
            first.kill()
            first.wait()
            second.enter_context(collector(case.there, port))

        moments.at("middle", kill_and_restart)
        case.run(address)
    case.check()


def test_a_collector_killed_in_the_middle_that_stays_away(case: Case, moments: Moments) -> None:
    """What it had acknowledged and what it missed become one record when the next run finds it."""
    port = free_port()
    with collector(case.there, port) as (process, address):
        moments.at("middle", lambda: (process.kill(), process.wait()))
        case.run_away(address)
    with collector(case.there, port):
        case.run(address)
        assert case.flush()[0] == 0
    first, second = records(case.there)
    assert numbers(first) == numbers(second) == numbers(case.undisturbed)


def test_a_collector_that_is_started_again_with_nothing_gets_everything(case: Case, moments: Moments) -> None:
    """Its store is lost with what it had acknowledged: the spool has it still, and no event is missing."""
    port = free_port()
    with ExitStack() as second, collector(case.there, port) as (first, address):

        def lose_everything() -> None:
            first.kill()
            first.wait()
            case.there.rename(case.there.with_name("lost"))
            second.enter_context(collector(case.there, port))

        moments.at("middle", lose_everything)
        case.run(address)
    case.check()


@pytest.mark.parametrize("moment", ["middle", pytest.param("end", marks=pytest.mark.long)])
@pytest.mark.parametrize("how", [pytest.param(signal.SIGKILL, marks=pytest.mark.long), signal.SIGSTOP])
def test_a_collector_that_is_gone_or_stands_still_is_not_waited_for(
    case: Case, moments: Moments, monkeypatch: pytest.MonkeyPatch, moment: str, how: signal.Signals
) -> None:
    """Nor is the time used up that one which answers would be given at the end. One warning; a flush sends the rest."""
    monkeypatch.setattr("quantizer.recorder.CLOSE_S", 10_000.0)
    with collector(case.there) as (process, address):
        moments.at(moment, lambda: process.send_signal(how))
        try:
            case.run_away(address)
        finally:
            process.send_signal(signal.SIGCONT)
    with collector(case.there) as (_, address):
        assert case.flush(address)[0] == 0
    case.check()


def test_an_experiment_that_was_taken_for_lost_completes_its_record(case: Case, moments: Moments) -> None:
    """Silent for longer than the collector waits, it has a line that says LOST; what comes later completes that one."""
    with collector(case.there, 0, "--lease_s", "1") as (_, address):
        moments.at("middle", lambda: until(lambda: bool(records(case.there)), "it is taken for lost"))
        out, err = case.run(address)
        assert "number 0" in out
        assert "warning" not in err
        (line,) = records(case.there)
        assert line["status"] == "LOST"
        assert qlog(["show", "0", "--format", "json", "--collector", address]) == 0
        shown = json.loads(case.capture.readouterr().out)
    assert shown["status"] == "COMPLETED"
    assert shown["activation_stats"] == case.undisturbed["activation_stats"]
    assert shown["results"] == case.undisturbed["results"]


def test_a_port_that_swallows_packets(case: Case) -> None:
    """A collector that accepts and never answers delays nothing but the end, and that a little."""
    with socket.create_server(("127.0.0.1", 0)) as hole:
        case.run_away(f"127.0.0.1:{hole.getsockname()[1]}")


def test_a_host_that_nobody_knows(case: Case) -> None:
    """A name that no resolver has an address for is a collector that is away."""
    assert "collector.invalid" in case.run_away("collector.invalid:50551")


def test_a_service_that_is_no_collector(case: Case) -> None:
    """A much older version, or something else on that port."""
    server = grpc.server(futures.ThreadPoolExecutor(2))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert "UNIMPLEMENTED" in case.run_away(f"127.0.0.1:{port}")
    finally:
        server.stop(None).wait()


# A collector whose files cannot grow beyond so many bytes, as if its disk were full.
CRAMPED = """
import resource, sys
from collector.entry import main
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
main(sys.argv[1:])
"""


def test_a_collector_whose_disk_is_full(case: Case) -> None:
    """It says so, and acknowledges nothing that it has not stored; with room again it gets the whole record."""
    with serving("-c", CRAMPED, "serve", "--port", "0", "--log_dir", str(case.there)) as (_, address):
        case.run_away(address)
    with collector(case.there) as (_, address):
        assert case.flush(address)[0] == 0
    case.check()
