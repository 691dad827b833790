"""The log: an entry is a line, whatever stands in it."""

import io
import json
import logging
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qlog.v1.escaping import LineFormatter, escape
from qlog.v1.log_writer import LogWriter
from qlog.v1.logs import as_json, as_text, start_logging

from collector.entry import main as collector
from quamba.reports import ProgressReport
from quantizer.console import Console
from quantizer.events import Progressed

HOSTILE = "x\n2026-11-25T00:00:00Z collector info: forged\r\x1b[31m\x9b\u2028\u202e\x00\ud800"
CONTROLS = set(map(chr, (*range(0x20), *range(0x7F, 0xA0)))) | set("\u2028\u2029\u202e\u2066")


def event(text: str) -> dict[str, object]:
    fixed = {"timestamp": "t", "program": "collector", "level": "info", "logger": "l"}
    return {**fixed, "event": text, "key": text, "list": [text, text], text or "k": 1}


@given(st.text())
def test_whatever_is_logged_stays_within_its_line(text: str) -> None:
    """Texts, keys, lists: no control character gets out, in either form; JSON gives back what was logged."""
    for line in (as_text(None, "info", event(text)), as_json(None, "info", event(text))):
        assert not CONTROLS & set(line)
    found = json.loads(as_json(None, "info", event(text)))
    assert (found["event"], found["key"], found["list"]) == (text, text, [text, text]) or text in found


@pytest.mark.parametrize("form", ["text", "json"])
def test_errors_of_others_are_told_within_their_lines(form: str) -> None:
    """The message and the traceback of an exception with hostile words; arguments of plain logging too."""
    stream = io.StringIO()
    start_logging("collector", form, "debug", stream)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logging.getLogger("collector.rpc").exception("incident %s", HOSTILE)
    lines = stream.getvalue().rstrip("\n").split("\n")
    assert not any(CONTROLS & set(line) for line in lines)
    if form == "json":
        [entry] = map(json.loads, lines)
        assert (entry["event"], entry["level"], entry["program"]) == (f"incident {HOSTILE}", "error", "collector")
        assert "ValueError" in entry["exception"]
    else:
        assert " collector error: incident x\\n" in lines[0]
        assert all(line.startswith("  | ") for line in lines[1:])


@pytest.mark.parametrize(("level", "told"), [("debug", 3), ("info", 2), ("warning", 1), ("error", 0)])
def test_levels_are_of_our_own_entries(level: str, told: int) -> None:
    """What other libraries tell below a warning is not the operator's."""
    stream = io.StringIO()
    start_logging("collector", "json", level, stream)
    for name in ("collector.x", "httpx"):
        for method in ("debug", "info", "warning"):
            getattr(logging.getLogger(name), method)("said")
    entries = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert sum(entry["logger"] == "collector.x" for entry in entries) == told
    assert sum(entry["logger"] == "httpx" for entry in entries) == min(told, 1)


def test_a_program_that_ends_says_why_in_the_form_of_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line: for people without a time before it, or the last entry of a log in JSON."""
    for number, form in enumerate(("text", "json")):
        (tmp_path / f"{number}").write_text("no directory\x1b")
        given = ["serve", "--port", "0", "--log_format", form, "--log_dir", str(tmp_path / f"{number}")]
        assert collector(given) == 1
        line = capsys.readouterr().err
        said = json.loads(line)["event"] if form == "json" else line.strip().removeprefix("collector: ")
        assert said == f"the log directory {tmp_path / str(number)} is not a directory"


def test_warnings_for_people_are_within_their_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """What a library warns of, as a program's user sees it, whatever names stand in it."""
    handler = logging.StreamHandler(stream := io.StringIO())
    handler.setFormatter(LineFormatter("qlog: "))
    record = logging.makeLogRecord({"msg": "the file %s", "args": (HOSTILE,)})
    handler.emit(record)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        record.exc_info = sys.exc_info()
        handler.emit(record)
    first, *rest = stream.getvalue().rstrip("\n").split("\n")
    assert first == f"qlog: the file {escape(HOSTILE)}"
    assert not any(CONTROLS & set(line) or line.startswith("2026") for line in rest)


def test_a_run_is_told_as_entries_where_that_is_asked_for() -> None:
    """Progress and trouble as JSON, without a bar; above their level they are not told."""
    stream = io.StringIO()
    start_logging("quantizer", "json", "info", stream)
    console = Console(form="json", level="info")
    console.show(Progressed(ProgressReport("calibrate", 1, 4, "documents")))
    console.line("experiment 1 of 2")
    console.warn_once("away")
    entries = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(entry["level"], entry["event"]) for entry in entries] == [
        ("info", "progress"),
        ("info", "experiment 1 of 2"),
        ("warning", "away"),
    ]
    assert (entries[0]["phase"], entries[0]["done"], entries[0]["total"]) == ("calibrate", 1, 4)


@pytest.mark.parametrize(("level", "told"), [("info", 3), ("warning", 1), ("error", 0)])
def test_how_much_of_a_run_is_told(level: str, told: int) -> None:
    """Progress is of the level info, trouble a warning."""
    stream = io.StringIO()
    console = Console(stream=stream, level=level)
    console.show(Progressed(ProgressReport("calibrate", 1, 4, "documents")))
    console.line("experiment 1 of 2")
    console.warn_once("away")
    assert len(stream.getvalue().splitlines()) == told


def test_entries_that_wait_too_many_are_counted() -> None:
    """Where the reader stands still some are lost, the others come in their order, and then how many were lost."""
    reading, writing = os.pipe()
    os.set_blocking(writing, True)
    writer = LogWriter(writing, most=10)
    entries = [logging.makeLogRecord({"msg": f"{number} {'x' * 10_000}"}) for number in range(100)]
    for entry in entries:
        writer.emit(entry)
    read = b""
    while b"entries were lost" not in read:
        read += os.read(reading, 1 << 16)
    numbers = [int(line.split()[0]) for line in read.splitlines()]
    assert numbers[:-1] == sorted(numbers[:-1])
    assert len(numbers) - 1 + numbers[-1] == 100
    writer.emit(logging.makeLogRecord({"msg": "one more"}))
    writer.flush()
    assert os.read(reading, 1 << 16) == b"one more\n"
    os.close(reading)
    writer.emit(logging.makeLogRecord({"msg": "to nobody"}))
    writer.flush()
    os.close(writing)
