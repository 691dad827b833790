"""What the project's Markdown says, taken apart: code, links, and commands to be parsed without running them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from client.entry import cli as qlog
from collector.entry import cli as collector
from quantizer.entry import cli as quantizer

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = {"quantizer": quantizer, "collector": collector, "qlog": qlog}
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_SHELL = ("sh", "console")


@dataclass(frozen=True, slots=True)
class Document:
    """One Markdown file."""

    path: Path

    @property
    def name(self) -> str:
        """Its path in the repository."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def text(self) -> str:
        """All of it."""
        return self.path.read_text(encoding="utf-8")

    def blocks(self, *languages: str) -> Iterator[str]:
        """The fenced blocks in these languages."""
        for _, language, body in _FENCE.findall(self.text):
            if language in languages:
                yield body

    def commands(self) -> Iterator[str]:
        """Every command line of shell blocks."""
        for language in _SHELL:
            for block in self.blocks(language):
                for line in block.replace("\\\n", " ").splitlines():
                    if language == "console" and not line.startswith("$ "):
                        continue  # What a command printed.
                    yield from _simple_commands(line.removeprefix("$ "))

    def mentions(self) -> Iterator[str]:
        """Commands, or the beginnings of some, in running text."""
        for code in _CODE.findall(_FENCE.sub("", self.text)):
            yield from _simple_commands(code)

    def links(self) -> Iterator[str]:
        """Where its links lead."""
        yield from _LINK.findall(_FENCE.sub("", self.text))

    def anchors(self) -> set[str]:
        """The names of its headings, as links to them are written."""
        headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", self.text), re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def documents() -> list[Document]:
    """All Markdown files of the repository."""
    hidden = (".", "build", "dist")
    paths = (
        path
        for path in ROOT.rglob("*.md")
        if not path.relative_to(ROOT).parts[0].startswith(hidden) and "node_modules" not in path.parts
    )
    return [Document(path) for path in sorted(paths)]


def parse(command: str) -> click.Context:
    """Parse a command line of one of the programs down to its verb, as the program would, without running it.

    Raises:
        click.ClickException: the program would refuse it.
    """
    name, *words = shlex.split(command)
    context = PROGRAMS[name].make_context(name, list(words))
    while isinstance(context.command, click.Group):
        _, words, _ = context.command.make_parser(context).parse_args(list(words))
        verb, found, words = context.command.resolve_command(context, words)
        assert found is not None, "resolve_command raises where there is no such verb"
        context = found.make_context(verb, list(words), parent=context)
    return context


def _simple_commands(line: str) -> Iterator[str]:
    """The commands of a line, without comments, variables before them, and where their output goes."""
    words = shlex.split(line, comments=True) if line.count("'") % 2 == 0 and line.count('"') % 2 == 0 else line.split()
    command: list[str] = []
    for word in [*words, ";"]:
        if word in ("|", "&&", "||", ";", "&"):
            if command:
                yield shlex.join(command)
            command = []
        elif command or not re.fullmatch(r"\w+=\S*", word):
            command.append(word)


__all__ = ["PROGRAMS", "ROOT", "Document", "documents", "parse"]
