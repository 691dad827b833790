"""The texts that are to be continued: from the command line, from a file, from standard input."""

import sys
from collections.abc import Sequence
from pathlib import Path

from quantizer.errors import SpecError, Violation

STANDARD_INPUT = "-"


def read_prompts(given: Sequence[str], file: str | None) -> tuple[str, ...]:
    """All prompts, those of the command line first.

    Args:
        given: `--prompt`, each; "-": all of standard input, without the line ending after it.
        file: `--prompts`: one a line, blank lines left out; "-": the lines of standard input.

    Raises:
        SpecError: there are none, or they cannot be read.
    """
    if [*given, file].count(STANDARD_INPUT) > 1:
        raise _refused("prompt", "standard input can be read once: give - to one of --prompt and --prompts")
    prompts = [_standard_input("prompt") if text == STANDARD_INPUT else text for text in given]
    if file is not None:
        text = _standard_input("prompts") if file == STANDARD_INPUT else _content(file)
        lines = [line for line in _without_return(text).split("\n") if line.strip()]
        if not lines:
            raise _refused("prompts", f"--prompts {file} holds no prompt: write one a line")
        prompts += lines
    if not prompts:
        raise _refused("prompt", "no prompt: give --prompt TEXT, --prompt - for standard input, or --prompts FILE")
    for number, prompt in enumerate(prompts):
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise _refused("prompt", f"prompt {number} is no valid UTF-8: {prompt[:40]!r}") from error
    return tuple(prompts)


def _content(file: str) -> str:
    try:
        return _decoded("prompts", file, Path(file).read_bytes())
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise _refused("prompts", f"--prompts {file!r} cannot be read: {reason}") from error


def _standard_input(option: str) -> str:
    text = _decoded(option, STANDARD_INPUT, sys.stdin.buffer.read())
    return _without_return(text).removesuffix("\n")


def _decoded(option: str, source: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refused(option, f"--{option} {source} is no UTF-8 (byte {error.start}): convert it first") from error


def _without_return(text: str) -> str:
    """Lines as they end on Unix."""
    return text.replace("\r\n", "\n")


def _refused(option: str, message: str) -> SpecError:
    return SpecError((Violation(option, message),))


__all__ = ["read_prompts"]
