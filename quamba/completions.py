"""Texts continued: the decoding loop with a tokenizer around it, piece by piece."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

from quamba.detokenizer import StopScanner, TextStream
from quamba.errors import RecipeError
from quamba.generation import Decoder, NewToken, generate
from quamba.generation_options import GenerationOptions

FinishReason = Literal["stop", "length", "eos"]


class Detokenizer(Protocol):
    """What is needed of a tokenizer; `quamba.models.tokenizer.Tokenizer` is one."""

    @property
    def eos_token_id(self) -> int:
        """The end of a text."""
        ...

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of ids."""
        ...


@dataclass(frozen=True, slots=True)
class Completion:
    """How a text goes on.

    Attributes:
        text: without the stop string that ended it.
        token_ids: all tokens that were generated, but for the end of text; those of a stop string too.
        finish_reason: "stop": a stop string; "eos": the end of text; "length": max_new_tokens.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A part of a completion.

    Attributes:
        row: its prompt's place.
        text: what follows the row's last piece; whole characters, possibly none.
        completion: with a row's last piece, all of it.
    """

    row: int
    text: str
    completion: Completion | None


def complete(
    model: Decoder,
    tokenizer: Detokenizer,
    prompts: Sequence[Sequence[int]],
    options: GenerationOptions,
    *,
    batch_size: int | None = None,
    vocab_size: int | None = None,
    streams: Sequence[int] = (),
    alone: bool = False,
) -> Iterator[list[TextPiece]]:
    """Continue prompts, `batch_size` at a time.

    Args:
        model, prompts, options, vocab_size, streams: see `quamba.generation.generate`.
        tokenizer: the model's.
        batch_size: prompts that are continued side by side; None: all. What comes out does not depend on it.
        alone: the continuation's text is that of its tokens alone. Otherwise it is what they add to the prompt's; for
            tokenizers that drop a space before a text's first word that is not the same.

    Yields:
        After each step a piece for each row that it went on with. A row's pieces together are its completion's text.

    Raises:
        RecipeError: a prompt has no tokens, or the batch size is below 1.
    """
    size = len(prompts) if batch_size is None else batch_size
    if size < 1 and len(prompts):
        raise RecipeError(f"batch_size must be at least 1, not {size}")
    numbers = streams or range(len(prompts))
    for start in range(0, len(prompts), max(size, 1)):
        part = range(start, min(start + size, len(prompts)))
        writers = [_Writer(tokenizer, row, () if alone else prompts[row], options.stop) for row in part]
        steps = generate(
            model,
            [prompts[row] for row in part],
            options,
            eos_token_id=tokenizer.eos_token_id,
            vocab_size=vocab_size,
            streams=[numbers[row] for row in part],
            wanted=partial(_goes_on, writers),
        )
        for step in steps:
            yield [writers[new.row].add(new) for new in step]


class _Writer:
    """One row's text."""

    def __init__(self, tokenizer: Detokenizer, row: int, context: Sequence[int], stop: Sequence[str]) -> None:
        self._row = row
        self._stream = TextStream(tokenizer.decode, context)
        self._scanner = StopScanner(stop)
        self._written: list[str] = []
        self._token_ids: list[int] = []

    @property
    def stopped(self) -> bool:
        """Whether a stop string ended it."""
        return self._scanner.stopped

    def add(self, new: NewToken) -> TextPiece:
        """The piece that a token makes."""
        text = ""
        if new.finish_reason != "eos":
            self._token_ids.append(new.token)
            text = self._scanner.add(self._stream.add(new.token))
        if new.finish_reason is not None:
            text += self._scanner.add(self._stream.end()) + self._scanner.end()
        self._written.append(text)
        reason: FinishReason | None = "stop" if self.stopped else new.finish_reason
        if reason is None:
            return TextPiece(self._row, text, None)
        return TextPiece(self._row, text, Completion("".join(self._written), tuple(self._token_ids), reason))


def _goes_on(writers: Sequence[_Writer], row: int) -> bool:
    return not writers[row].stopped


__all__ = ["Completion", "Detokenizer", "FinishReason", "TextPiece", "complete"]
