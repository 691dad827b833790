"""Settings of the servers: from options, the environment, a file and defaults, in this order; shown by `config`."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from qlog.v1.configuration import settings_options_of

from collector.entry import main as collector
from collector.entry import serve as collector_serve
from quantizer.entry import run_command as quantizer
from quantizer.entry import serve as quantizer_serve
from tests.documents import parse
from tests.secured import secured

MAINS: Mapping[str, Callable[[list[str]], int]] = {"collector": collector, "quantizer": quantizer}
SERVES: Mapping[str, click.Command] = {"collector": collector_serve, "quantizer": quantizer_serve}
PROGRAMS = sorted(MAINS)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QLOG_LOG_DIR", "QLOG_COLLECTOR", "QLOG_STATISTICS", "QLOG_TLS_CA", "QLOG_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, dict[str, Any]]]:
    """What `config --format json` says, by name; for a program, with words before and after the verb."""

    def ask(program: str, *words: str, before: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
        code = MAINS[program]([*before, "config", "--format", "json", *words])
        captured = capsys.readouterr()
        assert (code, captured.err) == (0, "")
        return {entry["name"]: entry for entry in json.loads(captured.out)}

    return ask


def file(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("program", PROGRAMS)
def test_options_win_over_the_environment_over_the_file_over_defaults(program, shown, tmp_path, monkeypatch):
    """Of each setting the first origin that has it counts, and is named."""
    path = file(tmp_path / "f.toml", 'host = "localhost"\nport = 1\nlog_level = "debug"\nlog_dir = "from-file"\n')
    prefix = f"QLOG_{program.upper()}"
    monkeypatch.setenv(f"{prefix}_PORT", "2")
    monkeypatch.setenv(f"{prefix}_LOG_LEVEL", "error")
    monkeypatch.setenv("QLOG_LOG_DIR", "from-environment")
    found = shown(program, "--config", path, "--log_level", "warning")
    expected = {
        "host": ("localhost", "file", path),
        "port": (2, "environment", f"{prefix}_PORT"),
        "log_level": ("warning", "option", "--log_level"),
        "log_dir": ("from-environment", "environment", "QLOG_LOG_DIR"),
        "insecure": (False, "default", ""),
    }
    assert {n: (found[n]["value"], found[n]["origin"], found[n]["source"]) for n in expected} == expected
    assert shown(program, "--log_dir", "a")["log_dir"]["value"] == "a"
    assert shown(program, before=("--log_dir", "b"))["log_dir"] == {
        "name": "log_dir",
        "value": "b",
        "origin": "option",
        "source": "--log_dir",
        "variable": "QLOG_LOG_DIR",
    }
    assert shown(program, "--log_dir", "a", before=("--log_dir", "b"))["log_dir"]["value"] == "a"


def test_the_file_may_be_named_by_the_environment_and_empty_is_not_given(shown, tmp_path, monkeypatch):
    """QLOG_COLLECTOR_CONFIG; empty strings in a file or a variable say nothing."""
    monkeypatch.setenv("QLOG_COLLECTOR_CONFIG", file(tmp_path / "f.toml", 'port = 7\ntls_cert = ""\nlog_dir = ""\n'))
    monkeypatch.setenv("QLOG_COLLECTOR_HOST", "")
    found = shown("collector")
    assert [found[name]["origin"] for name in ("port", "tls_cert", "log_dir", "host")] == ["file", *["default"] * 3]


def test_a_file_says_where_a_quantizer_records(shown, tmp_path, monkeypatch):
    """The collector and what it asks for: after options and variables."""
    path = file(
        tmp_path / "f.toml", 'collector = "127.0.0.1:1"\nstatistics = ["mine.py"]\ncollector_tls_ca = "system"\n'
    )
    found = shown("quantizer", "--config", path)
    assert (found["collector"]["value"], found["collector"]["origin"]) == ("127.0.0.1:1", "file")
    assert (found["statistics"]["value"], found["collector_tls_ca"]["value"]) == (["mine.py"], "system")
    monkeypatch.setenv("QLOG_COLLECTOR", "127.0.0.1:2")
    assert shown("quantizer", "--config", path)["collector"]["value"] == "127.0.0.1:2"
    assert (
        shown("quantizer", "--config", path, before=("--collector", "127.0.0.1:3"))["collector"]["origin"] == "option"
    )


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("prot = 5", "no setting 'prot'; is 'port' meant?"),
        ('token = "s3cret"', "no setting 'token'"),
        ("[server]\nport = 5", "no setting "),
        ('port = "5"', "port has to be a whole number, not '5'"),
        ("port = 5.5", "port has to be a whole number"),
        ("port = true", "port has to be a whole number"),
        ("port = 99999", "port: 99999 is not in the range"),
        ("insecure = 1", "insecure has to be true or false"),
        ("host = 1", "host has to be a string"),
        ('log_format = "xml"', "log_format: 'xml' is not one of"),
        ("port 5", "is no TOML"),
        ("port = 1\nport = 2", "is no TOML"),
        ('"a\\u001b[31m\\nb" = 1', "no setting 'a\\x1b[31m\\nb'"),
        ('host = "\\u001b"\nlog_level = "\\u001b"', "log_level: "),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line_that_names_file_and_key(program, text, named, tmp_path, capsys):
    """Exit 2, for `serve` and `config` alike; nothing acts on the terminal; values of unknown keys are not shown."""
    path = file(tmp_path / "f.toml", text)
    for verb in ("config", "serve"):
        assert MAINS[program]([verb, "--config", path]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert path in captured.err
        assert named in captured.err
        assert "s3cret" not in captured.err
        assert "\x1b" not in captured.err


@pytest.mark.parametrize("content", [b"\xff\xfe", b"port = 1\n" + b"# long\n" * 200_000, b"a=" + b"[" * 100_000])
def test_a_file_that_is_no_configuration(content, tmp_path, capsys):
    """Binary, endless, nested without end: one line, exit 2; the same where there is none."""
    path = tmp_path / "f.toml"
    assert collector(["config", "--config", str(path)]) == 2
    path.write_bytes(content)
    assert collector(["config", "--config", str(path)]) == 2
    assert [line.startswith("collector: the configuration ") for line in capsys.readouterr().err.splitlines()] == [
        True
    ] * 2


def test_a_wrong_variable_is_named(capsys, monkeypatch):
    """One line, exit 2."""
    monkeypatch.setenv("QLOG_COLLECTOR_PORT", "x")
    assert collector(["config"]) == 2
    assert "QLOG_COLLECTOR_PORT" in capsys.readouterr().err


def test_what_serve_would_refuse_config_refuses_after_showing_it(tmp_path, capsys):
    """The table is there to see why; an open address is exit 2."""
    path = file(tmp_path / "f.toml", 'host = "0.0.0.0"\n')
    assert collector(["config", "--config", path]) == 2
    captured = capsys.readouterr()
    assert ["host", "0.0.0.0", "file", path] in [line.split() for line in captured.out.splitlines()]
    assert "--insecure" in captured.err


def test_secrets_are_not_shown(tmp_path, capsys):
    """Tokens and keys are in files, whose names are shown and whose contents are not."""
    files = secured(tmp_path / "tls")
    for form in ("table", "json"):
        assert collector(["config", "--format", form, "--host", "0.0.0.0", *files.server]) == 0
        out = capsys.readouterr().out
        assert files.tokens in out
        assert "-secret" not in out
        assert "PRIVATE" not in out


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_option_of_a_server_is_a_setting_with_a_variable_of_its_own(program, shown):
    """`config` shows all that `serve` takes, and no two read the same variable."""
    found = shown(program)
    options = settings_options_of(SERVES[program])
    assert set(found) == {option.name for option in options}
    variables = [entry["variable"] for entry in found.values()]
    assert len(set(variables)) == len(variables)
    assert all(variable.startswith("QLOG_") for variable in variables)


def test_help_tells_the_variables():
    """`collector serve --help` names them, and the file."""
    text = parse("collector serve").get_help()
    assert "QLOG_COLLECTOR_PORT" in text
    assert "--config FILE" in text
