"""The command line: what it prints, how it refuses, how it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from click.testing import CliRunner
from qlog.v1 import collector_pb2 as wire

from collector.entry import cli, main
from collector.lock import read_holder
from collector.store import LOCK_NAME, LOG_NAME
from tests.collector.builders import connected, new_id, requests, whole

COMMAND = [sys.executable, "-W", "error", "-m", "collector.entry"]


@contextmanager
def started(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A collector process; killed at the end, if it still lives."""
    command = [*COMMAND, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, check=False)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_collector_serves_until_it_is_told_to_stop(log_dir, end):
    """One line when it is ready; a signal drains it: exit 0, no complaints, everything kept, the lock free."""
    experiment_id = new_id()
    for experiments in ("0 experiments", "1 experiment"):
        with started("serve", "--port", 0, "--log-dir", log_dir, "--log_level", "warning") as process:
            line = process.stdout.readline()
            found = re.fullmatch(
                rf"collector: listening on (127\.0\.0\.1:\d+), store {log_dir}/\S+\.jsonl, {experiments}\n",
                line,
            )
            assert found, line + process.stderr.read()
            assert read_holder(log_dir / LOCK_NAME).endpoint == found[1]
            with connected(found[1]) as (stub, _):
                watch = stub.WatchExperiments(wire.WatchExperimentsRequest(), timeout=60)
                answers = list(stub.AppendExperiment(requests(experiment_id, whole()), timeout=30))
                assert answers[-1].number == 0
                process.send_signal(end)
                out, err = process.communicate(timeout=30)
                watch.cancel()
            assert (process.returncode, out, err) == (0, "", "")
    assert read_holder(log_dir / LOCK_NAME) is None


def test_a_second_collector_says_who_has_the_store_or_the_port(log_dir, tmp_path):
    """One line on stderr, exit 1."""
    with started("--log_dir", log_dir, "serve", "--port", 0) as process:
        port = int(re.search(r":(\d+),", process.stdout.readline())[1])
        locked = run("serve", "--port", 0, "--log_dir", log_dir)
        assert (locked.returncode, locked.stdout) == (1, "")
        assert re.fullmatch(
            rf"collector: the store {log_dir} is held by process {process.pid} on \S+, "
            rf"collector at 127\.0\.0\.1:{port}: [^\n]*\n",
            locked.stderr,
        )
        busy = run("serve", "--port", port, QLOG_LOG_DIR=str(tmp_path / "other"))
        assert (busy.returncode, busy.stdout) == (1, "")
        assert re.fullmatch(
            rf"collector: cannot listen on 127\.0\.0\.1:{port}: Address already in use; [^\n]*--port\n", busy.stderr
        )
        assert (tmp_path / "other").is_dir()


def test_other_machines_are_not_listened_to_unless_told(capsys):
    """Addresses beyond loopback need --insecure: one line and exit 2 without; unknown ones exit 1."""
    for host in ("0.0.0.0", "::", ""):
        assert main(["serve", "--host", host]) == 2
        captured = capsys.readouterr()
        assert re.fullmatch(r"collector: other machines reach [^\n]*--insecure[^\n]*\n", captured.err)
    assert main(["serve", "--host", "no.such.host.invalid"]) == 1
    assert capsys.readouterr().err == "collector: cannot listen on 'no.such.host.invalid': no such address\n"


def test_an_address_of_another_machine_is_said_to_be_none_of_ours(log_dir):
    """The operating system's reason, in one line; exit 1."""
    ran = run("serve", "--host", "192.0.2.1", "--insecure", "--port", 0, "--log_dir", log_dir)
    assert ran.returncode == 1
    assert ran.stderr.startswith("collector: cannot listen on 192.0.2.1:0: Cannot assign requested address; choose ")


@pytest.mark.parametrize("arguments", ["serve --port 70000", "serve --port x", "serv", "serve x", "serve --nothing"])
def test_wrong_usage_is_one_line_and_exit_2(arguments, capsys):
    """What is wrong, and where help is."""
    assert main(arguments.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"collector: [^\n]+ \(see `collector[^`]* --help`\)\n", captured.err)


def test_no_command_is_help(capsys):
    """On stderr, exit 2."""
    assert main([]) == 2
    assert "Usage: collector" in capsys.readouterr().err


def test_a_directory_that_cannot_be_used_is_exit_1(tmp_path):
    """One line that says what to do."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "logs" / LOG_NAME).mkdir(parents=True)
    (tmp_path / "circle").symlink_to("circle")
    for path in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "logs", tmp_path / "circle"):
        ran = run("serve", "--port", 0, "--log_dir", path)
        assert ran.returncode == 1
        assert re.fullmatch(r"collector: the log [^\n]+\n", ran.stderr)


def test_help_has_examples_and_the_version_is_told():
    """--help on both levels, -h too; --version."""
    for arguments in (["--help"], ["serve", "--help"], ["serve", "-h"], ["fsck", "--help"]):
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 0
        assert "Examples:" in result.output
        assert re.search("collector (serve|fsck)", result.output)
    assert re.fullmatch(r"collector \d+\.\d+\S*\n", CliRunner().invoke(cli, ["--version"]).output)


def test_a_listener_that_was_there_first_keeps_its_port(log_dir):
    """A port that some other program listens on is not shared with it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ran = run("serve", "--port", taken.getsockname()[1], "--log_dir", log_dir)
    assert ran.returncode == 1
    assert "cannot listen" in ran.stderr


def test_a_lease_is_what_was_asked_for(log_dir):
    """An experiment whose sender says nothing for so long is LOST; the store tells its lease."""
    with started("serve", "--port", 0, "--log_dir", log_dir, "--lease_s", 1) as process:
        endpoint = re.search(r"listening on ([\d.:]+),", process.stdout.readline())[1]
        with connected(endpoint) as (stub, _):
            assert stub.GetStoreInfo(wire.GetStoreInfoRequest(), timeout=10).lease_s == 1
            silent = new_id()
            list(stub.AppendExperiment(requests(silent, whole()[:-1]), timeout=10))
            watch = stub.WatchExperiments(wire.WatchExperimentsRequest(experiment_id=silent), timeout=60)
            assert len(list(watch)) > 0  # Until it has ended.
            assert b'"LOST"' in (log_dir / LOG_NAME).read_bytes()
        process.terminate()
        warnings = [line for line in process.stderr.read().splitlines() if "lease_s" in line]
    assert len(warnings) == 1, "a lease that senders cannot keep is warned of, in one line"


@pytest.mark.parametrize("lease_s", ["0", "-1", "nan", "inf", "1e99", "x"])
def test_a_lease_that_is_none(tmp_path, lease_s):
    """Wrong usage, in one line; nothing is made."""
    ran = run("serve", "--port", 0, "--log_dir", tmp_path / "logs", "--lease_s", lease_s)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert "lease_s" in ran.stderr
    assert not (tmp_path / "logs").exists()
