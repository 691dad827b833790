"""lm-eval's requests for continuations: its options read, its prompts batched by length."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from quamba.completions import complete
from quamba.errors import RecipeError, TaskError
from quamba.evals.interface import Evaluable
from quamba.evals.relay import Compute, here
from quamba.generation_options import GenerationOptions, Sampling

MAX_GEN_TOKS = 256
SAMPLING_SEED = 1234
# So many rows read the weights once for all; more gains little, and their states take memory.
PROMPTS_ON_CUDA = 64
_TOKEN_LIMIT_NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
# What lm-eval's tasks also write, and the one value each for which it asks nothing.
_NEUTRAL = {"num_beams": 1, "num_return_sequences": 1, "use_cache": True}


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
    top_k, top_p, min_p = left.pop("top_k", 0), left.pop("top_p", 1.0), left.pop("min_p", 0.0)
    repetition_penalty = left.pop("repetition_penalty", 1.0)
    unknown = {name: value for name, value in left.items() if name not in _NEUTRAL or value != _NEUTRAL[name]}
    if unknown:
        raise TaskError(f"generation options that are not supported: {unknown}")
    try:
        return GenerationOptions(
            sampling=Sampling(
                temperature=0.0 if do_sample is False else float(temperature),
                top_k=max(int(top_k), 0),
                top_p=float(top_p),
                min_p=float(min_p),
                repetition_penalty=float(repetition_penalty),
            ),
            max_new_tokens=int(limits[0]) if limits else MAX_GEN_TOKS,
            stop=tuple(str(stop) for stop in ([until] if isinstance(until, str) else until) if stop),
            seed=SAMPLING_SEED,
        )
    except RecipeError as error:
        raise TaskError(f"generation options {dict(values)} are out of range: {error}") from error
    except (TypeError, ValueError) as error:
        raise TaskError(f"generation options {dict(values)} cannot be read: {error}") from error


def generate(
    loaded: Evaluable,
    prompts: Sequence[Sequence[int]],
    options: GenerationOptions,
    *,
    batch_size: int | None,
    streams: Sequence[int] = (),
    on_generated: Callable[[int], None] = lambda _: None,
    compute: Compute = here,
) -> list[str]:
    """Continue each prompt; the batch size does not change what comes out.

    Args:
        loaded: the model.
        prompts: token ids, at least one each.
        options: the same for all.
        batch_size: prompts at a time, of nearly equal length; None: 1, on a GPU `PROMPTS_ON_CUDA`.
        streams: a number for each prompt; equal prompts with different numbers are sampled independently. Default:
            their places.
        on_generated: called with the number of prompts done since the last call, at the latest after each batch.
        compute: runs each batch.
    """
    numbers = streams or range(len(prompts))
    results = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    at_once = batch_size or (PROMPTS_ON_CUDA if loaded.device.type == "cuda" else 1)
    for start in range(0, len(order), at_once):
        batch = order[start : start + at_once]
        prompted, streamed = [prompts[i] for i in batch], [numbers[i] for i in batch]
        continuations = compute(
            partial(_generate_batch, loaded, prompted, options, streamed, on_step=lambda: on_generated(0))
        )
        for index, continuation in zip(batch, continuations, strict=True):
            results[index] = continuation
        on_generated(len(batch))
    return results


def _generate_batch(
    loaded: Evaluable,
    prompts: Sequence[Sequence[int]],
    options: GenerationOptions,
    streams: Sequence[int],
    on_step: Callable[[], None],
) -> list[str]:
    """Continue prompts together."""
    texts = [""] * len(prompts)
    # Texts of the new tokens alone, as lm-eval's own models decode them.
    for pieces in complete(loaded.model, loaded.tokenizer, prompts, options, streams=streams, alone=True):
        for piece in pieces:
            if piece.completion is not None:
                texts[piece.row] = piece.completion.text
        on_step()
    return texts


__all__ = ["MAX_GEN_TOKS", "PROMPTS_ON_CUDA", "generate", "parse_options"]
