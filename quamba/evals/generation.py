"""Continuations of texts: greedy or sampled, batched, until a stop string, the end of text or a number of tokens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quamba.errors import TaskError
from quamba.evals.interface import Evaluable, TextTokenizer
from quamba.evals.relay import Compute, here
from quamba.evals.scoring import padded

MAX_GEN_TOKS = 256
SAMPLING_SEED = 1234
_TOKEN_LIMIT_NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
# What lm-eval's tasks also write, and the one value each for which it asks nothing.
_NEUTRAL = {"num_beams": 1, "num_return_sequences": 1, "repetition_penalty": 1.0, "min_p": 0.0, "use_cache": True}


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How to continue.

    Attributes:
        stop: strings that end a continuation; they are not part of it.
        max_tokens: a continuation's length at most.
        temperature: 0.0: the likeliest token each time; else tokens are drawn from softmax(logits / temperature),
        top_k: among the k likeliest (0: all),
        top_p: and among the fewest whose probabilities reach p (1.0: all).
    """

    stop: tuple[str, ...] = ()
    max_tokens: int = MAX_GEN_TOKS
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0


def parse_options(values: Mapping[str, Any]) -> GenerationOptions:
    """Options from lm-eval's `generation_kwargs`.

    Raises:
        TaskError: an option is unknown or its value is out of range.
    """
    left = {name: value for name, value in values.items() if value is not None}
    until = left.pop("until", ())
    limits = [left.pop(name) for name in _TOKEN_LIMIT_NAMES if name in left]
    do_sample = left.pop("do_sample", None)
    temperature = left.pop("temperature", 1.0 if do_sample else 0.0)
    top_k, top_p = left.pop("top_k", 0), left.pop("top_p", 1.0)
    unknown = {name: value for name, value in left.items() if name not in _NEUTRAL or value != _NEUTRAL[name]}
    if unknown:
        raise TaskError(f"generation options that are not supported: {unknown}")
    try:
        options = GenerationOptions(
            stop=tuple(str(stop) for stop in ([until] if isinstance(until, str) else until) if stop),
            max_tokens=int(limits[0]) if limits else MAX_GEN_TOKS,
            temperature=0.0 if do_sample is False else float(temperature),
            top_k=max(int(top_k), 0),
            top_p=float(top_p),
        )
    except (TypeError, ValueError) as error:
        raise TaskError(f"generation options {dict(values)} cannot be read: {error}") from error
    if not (options.max_tokens >= 1 and options.temperature >= 0.0 and 0.0 < options.top_p <= 1.0):
        raise TaskError(f"generation options out of range: {dict(values)}")
    return options


def generate(
    loaded: Evaluable,
    prompts: Sequence[Sequence[int]],
    options: GenerationOptions,
    *,
    batch_size: int,
    streams: Sequence[int] = (),
    on_generated: Callable[[int], None] = lambda _: None,
    compute: Compute = here,
) -> list[str]:
    """Continue each prompt; the batch size does not change what comes out.

    Args:
        loaded: the model.
        prompts: token ids, at least one each.
        options: the same for all.
        batch_size: prompts at a time, of nearly equal length.
        streams: a number for each prompt; equal prompts with different numbers are sampled independently. Default:
            their places.
        on_generated: called with the number of prompts done since the last call, at the latest after each batch.
        compute: runs each batch.
    """
    numbers = streams or range(len(prompts))
    results = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        prompted, streamed = [prompts[i] for i in batch], [numbers[i] for i in batch]
        continuations = compute(
            partial(_generate_batch, loaded, prompted, options, streamed, on_step=lambda: on_generated(0))
        )
        for index, continuation in zip(batch, continuations, strict=True):
            results[index] = continuation
        on_generated(len(batch))
    return results


@torch.no_grad()
def _generate_batch(
    loaded: Evaluable,
    prompts: Sequence[Sequence[int]],
    options: GenerationOptions,
    streams: Sequence[int],
    on_step: Callable[[], None],
) -> list[str]:
    """Continue prompts together; rows that are done leave the batch."""
    model, tokenizer = loaded.model, loaded.tokenizer
    # Each row has a random stream of its own: what is drawn does not depend on its neighbours.
    draws = [np.random.default_rng((SAMPLING_SEED, stream)) for stream in streams]
    written: list[list[int]] = [[] for _ in prompts]
    running = np.arange(len(prompts))
    cache = model.new_cache(len(prompts))
    input_ids, lengths = padded(prompts, loaded.device)
    logits = model.prefill(input_ids, lengths, cache)
    while True:
        uniform = np.array([draws[row].random() for row in running]) if options.temperature > 0.0 else None
        tokens = choose_tokens(logits.float(), options, uniform).cpu().numpy()
        kept: list[int] = []
        for place, (row, token) in enumerate(zip(running, tokens, strict=True)):
            if token == tokenizer.eos_token_id:
                continue
            written[row].append(int(token))
            if len(written[row]) < options.max_tokens and not _stopped(tokenizer, written[row], options.stop):
                kept.append(place)
        if not kept:
            return [_until_stop(tokenizer.decode(ids), options.stop) for ids in written]
        on_step()
        if len(kept) < len(running):
            running, tokens = running[kept], tokens[kept]
            cache = cache.select(torch.tensor(kept, device=loaded.device))
        logits = model.step(torch.from_numpy(tokens).to(loaded.device), cache)


def choose_tokens(logits: Tensor, options: GenerationOptions, uniform: NDArray[np.float64] | None) -> Tensor:
    """The next token of each row, int64 [Bt].

    Args:
        logits: float32 [Bt, V].
        options: see there.
        uniform: a number in [0, 1) for each row, float64 [Bt]; unused (None) where the temperature is 0.
    """
    if uniform is None:
        return logits.argmax(dim=-1)
    ordered, tokens = (logits / options.temperature).sort(dim=-1, descending=True, stable=True)
    if options.top_k:
        ordered, tokens = ordered[:, : options.top_k], tokens[:, : options.top_k]
    probabilities = torch.softmax(ordered.double(), dim=-1)
    reached = probabilities.cumsum(dim=-1)
    # A token stays while those before it have not reached top_p; the likeliest always does.
    probabilities = probabilities.masked_fill(reached - probabilities >= options.top_p, 0.0)
    reached = probabilities.cumsum(dim=-1)
    threshold = torch.from_numpy(uniform).to(reached.device)[:, None] * reached[:, -1:]
    place = torch.searchsorted(reached, threshold, right=True).clamp_(max=reached.shape[1] - 1)
    return tokens.gather(1, place).squeeze(1)


def _stopped(tokenizer: TextTokenizer, ids: Sequence[int], stop: Sequence[str]) -> bool:
    """Whether the last token completed a stop string. A token is at least a byte, a character at most four."""
    if not stop:
        return False
    tail = tokenizer.decode(ids[-(4 * max(map(len, stop)) + 4) :])
    return any(string in tail for string in stop)


def _until_stop(text: str, stop: Sequence[str]) -> str:
    """The text before the first stop string."""
    return text[: min((place for string in stop if (place := text.find(string)) >= 0), default=len(text))]


__all__ = ["MAX_GEN_TOKS", "GenerationOptions", "choose_tokens", "generate", "parse_options"]
