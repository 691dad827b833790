"""The one decoding loop: prompts read side by side, then a token a row and step, as an iterator over steps."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from quamba.decoding.choice import decoder_of
from quamba.errors import RecipeError
from quamba.generation_options import GenerationOptions
from quamba.sampling import draw_tokens, process_logits


class Decoder(Protocol):
    """A causal language model with a memory. Bt batch, L tokens, V padded vocabulary."""

    @property
    def device(self) -> torch.device:
        """Where its inputs have to be."""
        ...

    def new_cache(self, batch_size: int) -> Any:
        """The memory before the first token; its `select(rows)` keeps the rows with these int64 indices."""
        ...

    def prefill(self, input_ids: Tensor, lengths: Tensor | None, cache: Any) -> Tensor:
        """Logits float32 [Bt, V] of each row's last real position."""
        ...

    def step(self, input_ids: Tensor, cache: Any) -> Tensor:
        """Logits float32 [Bt, V] after one more token a row, int64 [Bt]."""
        ...


@dataclass(frozen=True, slots=True)
class NewToken:
    """One more token of a row.

    Attributes:
        row: its prompt's place.
        token: its id.
        finish_reason: "eos": it is the end of the text; "length": it is the last that was asked for; None: neither.
    """

    row: int
    token: int
    finish_reason: Literal["eos", "length"] | None


def generate(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    options: GenerationOptions,
    *,
    eos_token_id: int | None = None,
    vocab_size: int | None = None,
    streams: Sequence[int] = (),
    wanted: Callable[[int], bool] = lambda _: True,
) -> Iterator[list[NewToken]]:
    """Continue prompts together; rows that are done leave the batch.

    A row's tokens do not depend on its neighbours: each row draws from random numbers of its own. What is left is
    rounding: products of matrices differ in their last bits with the number of rows.

    Args:
        model: on its device.
        prompts: token ids, at least one each.
        options: how and until when; stop strings are the business of whoever knows the text, see `wanted`.
        eos_token_id: ends a row.
        vocab_size: ids from here on are never chosen: rows that pad the embedding mean no token. None: all are tokens.
        streams: which random numbers each row draws from, beside the seed. Default: its place.
        wanted: asked with each row that goes on, after its token was taken from the iterator; False ends the row.

    Yields:
        The new tokens of one step, of the rows that are left, in their order.

    Raises:
        RecipeError: a prompt has no tokens.
    """
    empty = next((row for row, prompt in enumerate(prompts) if not len(prompt)), None)
    if empty is not None:
        raise RecipeError(f"prompt {empty} has no tokens: begin it with the end-of-text token")
    if streams and len(streams) != len(prompts):
        raise RecipeError(f"{len(streams)} streams for {len(prompts)} prompts: give one each")
    rows = _Rows(prompts, options, streams or range(len(prompts)))
    return _steps(model, prompts, options, rows, eos_token_id, vocab_size, wanted) if len(prompts) else iter(())


class _Rows:
    """What is known of the rows that are left: their numbers, their random numbers, the tokens that they have."""

    def __init__(self, prompts: Sequence[Sequence[int]], options: GenerationOptions, streams: Sequence[int]) -> None:
        self.numbers = list(range(len(prompts)))
        self._sampling = options.sampling
        # numpy's generators mix all bits of both numbers into a state; torch's CPU generator takes 32 bits.
        self._draws = [np.random.default_rng((options.seed, stream)) for stream in streams]
        self._prompts = prompts
        self._seen: Tensor | None = None

    @torch.no_grad()
    def choose(self, logits: Tensor) -> Tensor:
        """The next token of each row, int64 [Bt], from float32 logits [Bt, V]."""
        sampling = self._sampling
        if sampling.repetition_penalty != 1.0 and self._seen is None:
            self._seen = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
            for place, prompt in enumerate(self._prompts):
                known = [token for token in prompt if token < logits.shape[1]]
                self._seen[place, torch.tensor(known, dtype=torch.int64, device=logits.device)] = True
        processed = process_logits(logits, sampling, self._seen)
        if sampling.greedy:
            tokens = processed.argmax(dim=-1)
        else:
            uniform = torch.tensor([draw.random() for draw in self._draws], dtype=torch.float64)
            tokens = draw_tokens(processed, uniform.to(logits.device))
        if self._seen is not None:
            self._seen.scatter_(1, tokens[:, None], True)
        return tokens

    def keep(self, places: Sequence[int], indices: Tensor) -> None:
        """Only the rows at these places go on; `indices` are the places on the model's device."""
        self.numbers = [self.numbers[place] for place in places]
        self._draws = [self._draws[place] for place in places]
        if self._seen is not None:
            self._seen = self._seen[indices]


def _steps(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    options: GenerationOptions,
    rows: _Rows,
    eos_token_id: int | None,
    vocab_size: int | None,
    wanted: Callable[[int], bool],
) -> Iterator[list[NewToken]]:
    model = decoder_of(model)
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    input_ids = pad_sequence([torch.tensor(prompt) for prompt in prompts], batch_first=True).to(model.device)
    whole = bool((lengths == input_ids.shape[1]).all())
    cache = model.new_cache(len(prompts))
    logits = model.prefill(input_ids, None if whole else lengths.to(model.device), cache)
    left = options.max_new_tokens
    while True:
        tokens = rows.choose(logits[:, :vocab_size].float())
        left -= 1
        step: list[NewToken] = []
        for row, token in zip(rows.numbers, tokens.tolist(), strict=True):
            reason: Literal["eos", "length"] | None = "eos" if token == eos_token_id else None if left else "length"
            step.append(NewToken(row, token, reason))
        yield step
        kept = [place for place, new in enumerate(step) if new.finish_reason is None and wanted(new.row)]
        if not kept:
            return
        if len(kept) < len(step):
            indices = torch.tensor(kept, device=model.device)
            rows.keep(kept, indices)
            cache, tokens = cache.select(indices), tokens[indices]
        logits = model.step(tokens, cache)


__all__ = ["Decoder", "NewToken", "generate"]
