"""What the three programs have in common on the command line."""

import re
from collections.abc import Callable

import pytest
from qlog.v1.command_line import counted

from client.entry import main as qlog
from collector.entry import main as collector
from quantizer.entry import run_command as quantizer
from tests.documents import PROGRAMS

MAINS: dict[str, Callable[[list[str]], int]] = {"quantizer": quantizer, "collector": collector, "qlog": qlog}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_version_is_told_alike(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The program's name and its version."""
    assert MAINS[name](["--version"]) == 0
    assert re.fullmatch(rf"{name} \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    "line",
    [
        "collector serve --host 0.0.0.0",
        "collector serve --host ::",
        "collector serve --port 99999",
        "collector serve --hots 127.0.0.1",
        "collector srve",
        "quantizer serve --host 0.0.0.0",
        "quantizer serve --port x",
        "quantizer serve --model_root /nowhere/at/all",
        "quantizer run",
        "quantizer run m --w_bit 8",
        "quantizer run m --batch_size many",
        "quantizer run m --observer emma",
        "quantizer spool flsh",
        "qlog lst",
        "qlog show",
        "qlog compare 1",
        "qlog list --frmat json",
        "qlog list --collector nowhere",
        "qlog submit m --observer emma",
    ],
)
def test_wrong_usage_is_one_line_alike(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2; one line on standard error, from the program, without click's Usage."""
    name, *words = line.split()
    assert MAINS[name](words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(rf"{name}: [^\n]+[^.\n]\n", captured.err)
    assert "Usage" not in captured.err


@pytest.mark.parametrize(("count", "text"), [(0, "0 experiments"), (1, "1 experiment"), (2, "2 experiments")])
def test_one_is_no_plural(count: int, text: str) -> None:
    """Counts of things read as a sentence."""
    assert counted(count, "experiment") == text
