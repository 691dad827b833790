"""The documents say what is so: commands parse, examples run, links lead somewhere, tables are complete."""

import re
import tomllib
from collections.abc import Iterable

import click
import pytest

from client.entry import COMMANDS
from tests import option_table
from tests.documents import PROGRAMS, ROOT, Document, documents, parse

README = Document(ROOT / "README.md")
SOURCES = ("client", "collector", "quantizer", "quamba", "proto/qlog")


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def of_programs(commands: Iterable[str]) -> list[str]:
    """Those of our programs, with a verb."""
    return [command for command in commands if command.split()[0] in PROGRAMS and " " in command]


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_every_command_in_the_documents_parses(document: Document) -> None:
    """Verbs and options exist and take the values given."""
    for command in of_programs(document.commands()):
        try:
            parse(command)
        except click.ClickException as error:
            pytest.fail(f"{document.name}: {command}: {error.format_message()}")


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_every_command_in_a_sentence_is_one(document: Document) -> None:
    """As far as it goes: it may lack what a verb needs."""
    for command in of_programs(document.mentions()):
        try:
            parse(command)
        except (
            click.MissingParameter,
            click.BadOptionUsage,
            click.exceptions.NoArgsIsHelpError,
            click.exceptions.Exit,
        ):
            continue  # `qlog show`, `qlog list --last`, `quantizer spool`, `qlog list --help`
        except click.ClickException as error:
            pytest.fail(f"{document.name}: {command}: {error.format_message()}")


def test_a_wrong_command_in_a_document_would_be_found() -> None:
    """The check above sees unknown verbs, unknown options and wrong values."""
    for wrong in ("qlog lst", "qlog list --frist 3", "quantizer run", "qlog list --last x", "collector serve --prot 1"):
        with pytest.raises(click.ClickException):
            parse(wrong)


def test_the_readme_shows_every_command() -> None:
    """Nothing that a user can do is left out."""
    shown = {" ".join(command.split()[:2]) for command in of_programs([*README.commands(), *README.mentions()])}
    every = {f"{name} {verb}" for name in ("quantizer", "collector") for verb in PROGRAMS[name].commands}
    every |= {f"qlog {verb}" for verb in COMMANDS}
    assert every <= shown


def test_the_table_of_options_is_complete_and_current() -> None:
    """Every option, its default, its help, and whether it is supported; `python -m tests.option_table` writes it."""
    assert option_table.written() == option_table.table()


def test_every_environment_variable_is_explained() -> None:
    """The README's table has those that the programs read, and no others."""
    pattern = re.compile(r"\bQLOG_[A-Z_]+\b")
    read = set()
    for source in SOURCES:
        for path in (ROOT / source).rglob("*.py"):
            read |= set(pattern.findall(path.read_text(encoding="utf-8")))
    table = README.text.partition("## Environment variables")[2].partition("## ")[0]
    assert set(re.findall(r"^\| `(QLOG_[A-Z_]+)`", table, re.MULTILINE)) == read


@pytest.mark.parametrize("number", range(len(list(README.blocks("python")))))
def test_the_python_examples_run(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    """As they stand, from the repository's root; what they print is what they are about."""
    exec(compile(list(README.blocks("python"))[number], f"README.md, example {number}", "exec"), {})
    printed = capsys.readouterr().out
    assert "layer_0.x_proj:input: " in printed
    assert "gutenberg_cloze {" in printed
    assert re.search(r"^gutenberg \d+\.\d+$", printed, re.MULTILINE)


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_every_link_leads_somewhere(document: Document) -> None:
    """Files are there, and so are the headings."""
    for link in document.links():
        if link.startswith(("https://", "mailto:")):
            continue
        file, _, anchor = link.partition("#")
        target = (document.path.parent / file).resolve() if file else document.path
        assert target.exists(), f"{document.name}: {link}: no such file"
        assert target.is_relative_to(ROOT), f"{document.name}: {link}: outside the repository"
        if anchor:
            assert anchor in Document(target).anchors(), f"{document.name}: {link}: no such heading"


def test_every_make_target_that_is_named_exists() -> None:
    """And the README names those that a newcomer needs."""
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        word
        for document in documents()
        for command in [*document.commands(), *document.mentions()]
        if command.split()[0] == "make"
        for word in command.split()[1:]
        if "=" not in word
    }
    assert {"demo", "test", "help"} <= named <= targets


def test_every_folder_has_its_line_in_contributing() -> None:
    """The layout there is the layout here."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        packages = tomllib.load(file)["tool"]["setuptools"]["packages"]
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    folders = {name.replace(".", "/") for name in packages if not name.startswith("qlog")}
    assert {folder for folder in folders if folder.split("/")[-1] + "/" not in text} == set()


def test_the_changelog_has_this_version() -> None:
    """Each release is told of."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    assert re.search(
        rf"^## \[{re.escape(version)}\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
