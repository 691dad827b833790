"""Completions as a user sees them: whole or piece by piece, as text or as JSON."""

import json
import re
import sys
from collections.abc import Sequence
from typing import Any, Protocol

from quamba.completions import Completion, TextPiece

_TITLE_WIDTH = 60
# A terminal may act on these: all controls but tab and newline, and what changes the direction of writing.
_HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class Output(Protocol):
    """Where pieces go."""

    def show(self, piece: TextPiece) -> None:
        """One more piece."""
        ...

    def end(self) -> None:
        """Nothing more comes, or nothing more is wanted."""
        ...


def output_for(prompts: Sequence[str], *, stream: bool, as_json: bool) -> Output:
    """The way to show the completions of these prompts."""
    if stream:
        return StreamedJson() if as_json or len(prompts) > 1 else StreamedText()
    return WholeJson(prompts) if as_json else WholeText(prompts)


class StreamedText:
    """One completion as it comes, and a newline after it."""

    def show(self, piece: TextPiece) -> None:
        """One more piece."""
        if piece.text:
            _write(piece.text)

    def end(self) -> None:
        """The last line's end."""
        _write("\n")


class StreamedJson:
    """A line of JSON a piece; a row's last one says why it ended."""

    def show(self, piece: TextPiece) -> None:
        """One more piece; an empty one is worth no line."""
        if piece.completion is not None:
            _write(_json({"index": piece.row, "text": piece.text} | _ending(piece.completion)) + "\n")
        elif piece.text:
            _write(_json({"index": piece.row, "text": piece.text}) + "\n")

    def end(self) -> None:
        """Every line is written already."""


class WholeText:
    """Completions in their prompts' order, each as soon as those before it are there; several have titles."""

    def __init__(self, prompts: Sequence[str]) -> None:
        self._prompts = prompts
        self._waiting: dict[int, Completion] = {}
        self._next = 0

    def show(self, piece: TextPiece) -> None:
        """One more piece; the last one of a row counts."""
        if piece.completion is None:
            return
        self._waiting[piece.row] = piece.completion
        while self._next in self._waiting:
            _write(self._title() + self._waiting.pop(self._next).text + "\n")
            self._next += 1

    def _title(self) -> str:
        if len(self._prompts) == 1:
            return ""
        prompt = " ".join(self._prompts[self._next].split())
        shown = prompt if len(prompt) <= _TITLE_WIDTH else prompt[: _TITLE_WIDTH - 3] + "..."
        return ("\n" if self._next else "") + f"==> {self._next}: {shown} <==\n"

    def end(self) -> None:
        """Every completion is written already."""


class WholeJson:
    """An array with an object a prompt, written when all are there."""

    def __init__(self, prompts: Sequence[str]) -> None:
        self._prompts = prompts
        self._completions: dict[int, Completion] = {}

    def show(self, piece: TextPiece) -> None:
        """One more piece; the last one of a row counts."""
        if piece.completion is None:
            return
        self._completions[piece.row] = piece.completion
        if len(self._completions) == len(self._prompts):
            objects = (self._object(row, prompt) for row, prompt in enumerate(self._prompts))
            _write("[\n  " + ",\n  ".join(objects) + "\n]\n")

    def _object(self, row: int, prompt: str) -> str:
        completion = self._completions[row]
        return _json({"prompt": prompt, "completion": completion.text} | _ending(completion))

    def end(self) -> None:
        """Half an array would be no JSON."""


def _ending(completion: Completion) -> dict[str, Any]:
    return {"tokens": list(completion.token_ids), "finish_reason": completion.finish_reason}


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return _HARMFUL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _write(text: str) -> None:
    """To standard output at once: on a terminal without what it would act on, elsewhere as it is."""
    if sys.stdout.isatty():
        text = _HARMFUL.sub("\N{REPLACEMENT CHARACTER}", text)
    encoding = sys.stdout.encoding or "utf-8"
    # A locale that lacks a character is no reason to stop. (click.echo would leave out what looks like colours.)
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()


__all__ = ["Output", "StreamedJson", "StreamedText", "WholeJson", "WholeText", "output_for"]
