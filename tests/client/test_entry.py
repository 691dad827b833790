import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

import click
import pytest

import client
from client.entry import COMMANDS, cli
from client.labels import LABELS
from tests.client import builders
from tests.client.conftest import PROGRAM, Ran, environment, started
from tests.client.fakes import FakeCollector, FakeQuantizer

Qlog = Callable[..., Ran]


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_command_explains_itself(qlog: Qlog, verb: str) -> None:
    """--help has a sentence, examples, and the options that every command has."""
    ran = qlog(verb, "--help")
    assert ran.code == 0
    assert f"Usage: qlog {verb}" in ran.out
    assert f"qlog {verb}" in ran.out.split("Examples:")[1] or "qlog --" in ran.out.split("Examples:")[1]
    for option in ("--collector", "--log_dir", "--log-dir", "--quantizer", "--format", "--timeout"):
        assert option in ran.out


@pytest.mark.parametrize("verb", COMMANDS)
def test_the_examples_in_the_help_are_commands(verb: str) -> None:
    """Each example parses: its options exist."""
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    assert command.epilog is not None
    examples = re.findall(rf"qlog (?:--\S+ \S+ )?{verb} ?([^|\n]*)", command.epilog)
    assert examples
    for example in examples:
        words = list(takewhile(lambda word: word != ">", shlex.split(example)))
        command.make_context(verb, words, resilient_parsing=False)


def test_the_program_explains_itself(qlog: Qlog) -> None:
    """All commands are listed; without a command the same, as wrong usage."""
    ran = qlog("--help")
    assert ran.code == 0
    assert all(f"\n  {verb}" in ran.out for verb in COMMANDS)
    assert qlog().code == 2


def test_every_label_is_used() -> None:
    """No word to translate is left over, and none is missing."""
    source = "".join(
        path.read_text()
        for path in Path(client.__file__).parent.rglob("*.py")
        if path.name not in {"labels.py", "labels_zh.py"}
    )
    assert [key for key in LABELS if not re.search(rf"""["']{key}["']""", source)] == []
    used = re.findall(r"""label\(["'](\w+)["']\)""", source)
    assert used
    assert set(used) <= set(LABELS)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--collector", "E", "list"],
        ["list", "--collector", "E"],
        ["--collector", "127.0.0.1:1", "list", "--collector", "E"],
        ["--format", "csv", "list", "--format", "table", "--collector", "E"],
        ["--collector=E", "--log_dir", "nowhere", "list"],
        ["list", "--log-dir", "nowhere", "--collector=E"],
    ],
)
def test_options_stand_before_or_after_the_verb(qlog: Qlog, collector: FakeCollector, arguments: list[str]) -> None:
    """Both places mean the same, the later one wins, and a server goes before a directory."""
    ran = qlog(*(argument.replace("E", collector.endpoint) for argument in arguments))
    assert ran.code == 0
    assert ran.out.startswith("#  id ")


def test_the_environment_weighs_less_than_options(
    qlog: Qlog, collector: FakeCollector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """QLOG_COLLECTOR names the server, until an option names another or a directory."""
    monkeypatch.setenv("QLOG_COLLECTOR", collector.endpoint)
    monkeypatch.setenv("QLOG_LOG_DIR", str(tmp_path))
    assert "mamba-2m" in qlog("list").out
    assert qlog("list", "--collector", "127.0.0.1:1").code == 1
    assert "no experiments" in qlog("list", "--log_dir", str(tmp_path)).out
    assert "no experiments" in qlog("--log_dir", str(tmp_path), "list").out
    monkeypatch.setenv("QLOG_COLLECTOR", "")
    assert "no experiments" in qlog("list").out
    assert "no experiments" in qlog("list", "--collector", "", "--log_dir", str(tmp_path)).out


def test_an_empty_option_is_not_given(qlog: Qlog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`--log_dir "$UNSET"` is the default store, not the current directory."""
    monkeypatch.chdir(tmp_path)
    assert qlog("list", "--log_dir", "").out == qlog("list").out
    assert "logs/" in qlog("list", "--log_dir", "").out


@pytest.mark.parametrize(
    "address",
    ["localhost", "host:", ":50551", "host:0", "host:65536", "host:abc", "a b:1", "dns:///x:1", "::1:50551", "h:1\n"],
)
def test_what_is_no_address(qlog: Qlog, address: str) -> None:
    """HOST:PORT is checked before anything is asked of it."""
    ran = qlog("list", "--collector", address)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "HOST:PORT" in ran.err


@pytest.mark.parametrize(
    "arguments",
    [["frobnicate"], ["list", "more"], ["--format", "xml", "list"], ["list", "--timeout", "0"], ["list", "--nope"]],
)
def test_wrong_usage_is_one_line(qlog: Qlog, arguments: list[str]) -> None:
    """Exit code 2, what was wrong, and where to read on."""
    ran = qlog(*arguments)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "--help" in ran.err


def test_exit_codes_reach_the_shell(collector: FakeCollector, tmp_path: Path) -> None:
    """0 done, 1 failed, 2 wrong usage; errors on the standard error alone."""
    where = ["--collector", collector.endpoint]
    for arguments, code in ((["list", *where], 0), (["show", "99", *where], 1), (["show", *where], 2)):
        ran = subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, env=environment(), check=False)
        assert ran.returncode == code
        assert bool(ran.stdout) == (code == 0)
        assert ran.stderr.count("\n") == (code != 0)


def test_a_reader_that_goes_away_is_no_error(collector: FakeCollector) -> None:
    """`qlog list | head -1`: silence, also for what is still in the buffer."""
    collector.experiments = [builders.experiment(number) for number in range(3)]
    for form in ("table", "json", "csv", "markdown"):
        command = (
            f"{' '.join(PROGRAM)} list --format {form} --collector {collector.endpoint} | true; echo ${{PIPESTATUS[0]}}"
        )
        ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment(), check=True)
        assert ran.stderr == ""
        assert ran.stdout == "0\n"


def test_an_interrupt_ends_quietly(collector: FakeCollector) -> None:
    """Ctrl-C during a watch: exit code 130, no traceback."""
    process = started("watch", "--collector", collector.endpoint)
    assert process.stderr is not None
    assert "watching" in process.stderr.readline()
    while not any(hasattr(request, "resume_token") for request in collector.requests):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_an_interrupt_leaves_the_job(quantizer: FakeQuantizer) -> None:
    """Ctrl-C while waiting for a job: it goes on, and the user is told how to follow and how to end it."""
    quantizer.hold = threading.Event()
    process = started("submit", "m", "--wait", "--quantizer", quantizer.endpoint)
    while not quantizer.watches:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    quantizer.hold.set()
    assert process.returncode == 130
    assert builders.IDS[0] in out
    assert f"qlog cancel {builders.IDS[0]}" in err
    assert "Traceback" not in err


def test_bytes_that_are_no_text(collector: FakeCollector) -> None:
    """A command line that is not UTF-8 is wrong usage, not a failure."""
    ran = subprocess.run(
        [*PROGRAM, "show", b"\xff\xfe", "--collector", collector.endpoint],
        capture_output=True,
        env=environment(),
        check=False,
    )
    assert ran.returncode == 2
    assert b"UTF-8" in ran.stderr
    assert b"Traceback" not in ran.stderr


def test_an_output_that_cannot_show_a_character(collector: FakeCollector) -> None:
    """Its code is shown instead."""
    ran = subprocess.run(
        [*PROGRAM, "list", "--collector", collector.endpoint],
        capture_output=True,
        env={**environment(), "PYTHONIOENCODING": "ascii"},
        check=False,
    )
    assert ran.returncode == 0
    assert b"\\u6a21\\u578b-2m" in ran.stdout


def test_a_list_loads_no_more_than_it_needs(collector: FakeCollector) -> None:
    """Neither torch nor the quantizer's messages, no rich without a terminal, no collector to ask a remote one."""
    code = (
        "import sys; from client.entry import main; "
        f"code = main(['list', '--collector', '{collector.endpoint}']); "
        "print(code, sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'rich', 'numpy', 'collector', "
        "'quamba', 'quantizer', 'markdown_it', 'pygments'}), 'qlog.v1.quantizer_pb2' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert ran.stdout.splitlines()[-1] == "0 [] False"
