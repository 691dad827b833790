"""Laws of generation: batches, caches and stop strings are what a loop over full prefills would give."""

from typing import Any

import pytest
import torch

from quamba.errors import TaskError
from quamba.evals.generation import SAMPLING_SEED, generate, parse_options
from quamba.generation_options import GenerationOptions, Sampling
from tests.quamba.evals_fakes import Fake, log_probs_of

LOADED = Fake()
GREEDY = Sampling(temperature=0.0)
PROMPTS = [[17, 300, 5], [42], [8, 9, 10, 11, 12, 1000], [17, 300, 5]]


def greedy(prompt: list[int], count: int) -> list[int]:
    """The likeliest tokens, by reading the whole text again for each."""
    text = list(prompt)
    for _ in range(count):
        text.append(int(log_probs_of(LOADED, text)[-1].argmax()))
        if text[-1] == LOADED.tokenizer.eos_token_id:
            return text[len(prompt) : -1]
    return text[len(prompt) :]


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_greedy_is_the_loop_over_full_prefills(batch_size: int) -> None:
    """Cached steps in any batch give the tokens that reading everything again gives."""
    options = GenerationOptions(GREEDY, max_new_tokens=12)
    expected = [LOADED.tokenizer.decode(greedy(prompt, 12)) for prompt in PROMPTS]
    assert generate(LOADED, PROMPTS, options, batch_size=batch_size) == expected


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_stop_string_ends_the_text_before_it(batch_size: int) -> None:
    """Each text ends before the first stop string, and rows that stop early leave the others as they are."""
    whole = generate(LOADED, PROMPTS, GenerationOptions(GREEDY, max_new_tokens=12), batch_size=4)
    stop = (whole[0][4:7], whole[2][9:10])
    assert all(stop)
    options = GenerationOptions(GREEDY, max_new_tokens=12, stop=stop)
    expected = [min((text.split(string)[0] for string in stop), key=len) for text in whole]
    assert generate(LOADED, PROMPTS, options, batch_size=batch_size) == expected


def test_the_end_of_text_ends_it() -> None:
    """A model that says end-of-text after its first token writes one token, without the end-of-text."""
    loaded = Fake()
    eos = loaded.tokenizer.eos_token_id
    step = loaded.model.step

    def ending(input_ids: torch.Tensor, cache: object) -> torch.Tensor:
        logits = step(input_ids, cache)
        logits[:, eos] = 1e6
        return logits

    loaded.model.step = ending
    [text] = generate(loaded, [[17, 300, 5]], GenerationOptions(GREEDY, max_new_tokens=12), batch_size=1)
    assert text == loaded.tokenizer.decode(greedy([17, 300, 5], 1))


def test_sampling_does_not_depend_on_the_batch() -> None:
    """Each prompt has a random stream of its own; the same prompt twice gives two texts."""
    options = GenerationOptions(Sampling(temperature=2.0, top_k=200, top_p=0.95), max_new_tokens=8)
    texts = generate(LOADED, PROMPTS, options, batch_size=1)
    assert generate(LOADED, PROMPTS, options, batch_size=4) == texts
    assert texts[0] != texts[3]


def test_sampling_one_token_is_greedy() -> None:
    """top_k = 1 and a tiny top_p leave the likeliest token alone."""
    options = GenerationOptions(GREEDY, max_new_tokens=6)
    expected = generate(LOADED, PROMPTS, options, batch_size=2)
    for narrow in ({"top_k": 1}, {"top_p": 1e-9}):
        sampled = GenerationOptions(Sampling(temperature=1.0, **narrow), max_new_tokens=6)
        assert generate(LOADED, PROMPTS, sampled, batch_size=2) == expected


def options(max_new_tokens: int = 256, stop: tuple[str, ...] = (), **sampling: Any) -> GenerationOptions:
    """Options as they are read from lm-eval's."""
    return GenerationOptions(Sampling(**{"temperature": 0.0} | sampling), max_new_tokens, stop, SAMPLING_SEED)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, options()),
        ({"until": "\n", "do_sample": False, "temperature": 0.7}, options(stop=("\n",))),
        ({"until": ["a", ""], "max_new_tokens": 9}, options(stop=("a",), max_new_tokens=9)),
        ({"max_gen_toks": 5, "max_tokens": 7}, options(max_new_tokens=5)),
        ({"do_sample": True}, options(temperature=1.0)),
        ({"temperature": "0.5", "top_k": 3, "top_p": 0.9}, options(temperature=0.5, top_k=3, top_p=0.9)),
        ({"num_beams": 1, "min_p": 0.1, "until": None, "top_k": -1}, options(min_p=0.1)),
        ({"repetition_penalty": 1.2}, options(repetition_penalty=1.2)),
    ],
)
def test_options_are_read_as_lm_eval_writes_them(values: dict[str, object], expected: GenerationOptions) -> None:
    """Aliases, single strings and defaults of `generation_kwargs`."""
    assert parse_options(values) == expected


@pytest.mark.parametrize(
    "values",
    [
        {"num_beams": 4},
        {"extra": 1},
        {"max_gen_toks": 0},
        {"temperature": -1.0},
        {"top_p": 0.0},
        {"min_p": 2.0},
        {"max_tokens": "x"},
    ],
)
def test_options_that_cannot_be_obeyed_are_refused(values: dict[str, object]) -> None:
    """Never ignored: what is unknown or out of range is an error that shows it."""
    with pytest.raises(TaskError, match=next(iter(values))):
        parse_options(values)
