"""What a record says of where it was made, ids, and what a user sees of progress."""

import io
import subprocess
import time
import uuid
from pathlib import Path

import pytest

from quantizer.clock import PhaseClock
from quantizer.console import Console
from quantizer.endpoints import check_address
from quantizer.environment import describe
from quantizer.ids import new_experiment_id
from tests.quantizer.builders import measured, progressed


def test_ids_are_uuids_of_version_7_that_sort_by_time() -> None:
    """Their first 48 bits are the time in milliseconds."""
    before = time.time_ns() // 1_000_000
    ids = [new_experiment_id() for _ in range(1000)]
    after = time.time_ns() // 1_000_000
    assert len(set(ids)) == 1000
    for text in ids:
        value = uuid.UUID(text)
        assert value.version == 7
        assert value.variant == uuid.RFC_4122
        assert before <= value.int >> 80 <= after


def test_the_environment_holds_named_variables_and_nothing_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables are recorded by allow-list only."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    environment = describe("cpu")
    assert environment["variables"]["OMP_NUM_THREADS"] == "3"
    assert "secret" not in str(environment)
    for key in ("host", "user", "git_sha", "git_dirty", "python", "torch", "cuda", "lm_eval", "mamba_ssm", "gpu"):
        assert key in environment


def test_the_state_of_the_repository_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit, and whether tracked files differ from it; nothing where there is no repository."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert (describe("cpu")["git_sha"], describe("cpu")["git_dirty"]) == (None, None)
    (tmp_path / "file").write_text("one")
    identity = ["-c", "user.name=someone", "-c", "user.email=someone@example.com"]
    for words in (["init", "-q"], ["add", "file"], [*identity, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", *words], check=True, cwd=tmp_path)
    assert len(describe("cpu")["git_sha"]) == 40
    assert describe("cpu")["git_dirty"] is False
    (tmp_path / "file").write_text("two")
    assert describe("cpu")["git_dirty"] is True


def test_phases_are_timed_in_their_order() -> None:
    """A phase that is entered again goes on; together they are no more than the whole."""
    clock = PhaseClock()
    for phase in ("load", "calibrate", "load"):
        clock.enter(phase)
        time.sleep(0.002)
    phases = clock.phases()
    assert [name for name, _ in phases] == ["load", "calibrate"]
    assert all(seconds > 0 for _, seconds in phases)
    assert sum(seconds for _, seconds in phases) <= clock.total_s() + 0.01


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_progress_is_a_few_plain_lines() -> None:
    """No bars, no control characters, a line for each phase."""
    stream = io.StringIO()
    console = Console(stream=stream)
    for phase in ("load", "calibrate"):
        for done in range(100):
            console.show(progressed(done, 100, phase))
    console.end()
    assert [line.partition(":")[0] for line in stream.getvalue().splitlines()] == ["load", "calibrate"]
    assert "\x1b" not in stream.getvalue()


def test_on_a_terminal_a_bar_is_gone_when_it_ends() -> None:
    """Lines are printed above it, and nothing of it stays."""
    stream = Terminal()
    console = Console(verbose=True, stream=stream)
    console.show(progressed(1, 2))
    console.show(measured())
    console.show(progressed(2, 2))
    console.end()
    assert "layer_0.x_proj:input" in stream.getvalue()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_the_user_gets_one_warning() -> None:
    """Whatever else goes wrong with the record."""
    stream = io.StringIO()
    console = Console(stream=stream)
    for message in ("the first", "the second"):
        console.warn_once(message)
    assert stream.getvalue() == "quantizer: warning: the first\n"


def test_a_console_that_nobody_reads_harms_nothing() -> None:
    """A closed stream ends the showing, not the experiment."""
    stream = io.StringIO()
    console = Console(stream=stream)
    stream.close()
    console.show(progressed())
    console.warn_once("unheard")


@pytest.mark.parametrize("address", ["host:1", "127.0.0.1:50551", "[::1]:65535", "store.example:443"])
def test_addresses_are_taken(address: str) -> None:
    """HOST:PORT, with brackets around an IPv6 address."""
    assert check_address(address) is None


@pytest.mark.parametrize(
    "address",
    ["", "host", ":1", "host:", "host:0", "host:65536", "host:x", "http://host:1", "::1:50551", "host:-1", "host:١"],
)
def test_what_is_no_address_is_refused_with_an_example(address: str) -> None:
    """The message says how to write it."""
    violation = check_address(address)
    assert violation is not None
    assert violation.field == "collector"
