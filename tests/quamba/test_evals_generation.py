"""Laws of generation: batches, caches and stop strings are what a loop over full prefills would give."""

import numpy as np
import pytest
import torch

from quamba.errors import TaskError
from quamba.evals.generation import GenerationOptions, choose_tokens, generate, parse_options
from tests.quamba.evals_fakes import Fake, log_probs_of

LOADED = Fake()
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
    options = GenerationOptions(max_tokens=12)
    expected = [LOADED.tokenizer.decode(greedy(prompt, 12)) for prompt in PROMPTS]
    assert generate(LOADED, PROMPTS, options, batch_size=batch_size) == expected


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_stop_string_ends_the_text_before_it(batch_size: int) -> None:
    """Each text ends before the first stop string, and rows that stop early leave the others as they are."""
    whole = generate(LOADED, PROMPTS, GenerationOptions(max_tokens=12), batch_size=4)
    stop = (whole[0][4:7], whole[2][9:10])
    assert all(stop)
    options = GenerationOptions(max_tokens=12, stop=stop)
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
    [text] = generate(loaded, [[17, 300, 5]], GenerationOptions(max_tokens=12), batch_size=1)
    assert text == loaded.tokenizer.decode(greedy([17, 300, 5], 1))


def test_sampling_does_not_depend_on_the_batch() -> None:
    """Each prompt has a random stream of its own; the same prompt twice gives two texts."""
    options = GenerationOptions(max_tokens=8, temperature=2.0, top_k=200, top_p=0.95)
    texts = generate(LOADED, PROMPTS, options, batch_size=1)
    assert generate(LOADED, PROMPTS, options, batch_size=4) == texts
    assert texts[0] != texts[3]


def test_sampling_one_token_is_greedy() -> None:
    """top_k = 1 and a tiny top_p leave the likeliest token alone."""
    options = GenerationOptions(max_tokens=6)
    expected = generate(LOADED, PROMPTS, options, batch_size=2)
    for narrow in ({"top_k": 1}, {"top_p": 1e-9}):
        sampled = GenerationOptions(max_tokens=6, temperature=1.0, **narrow)
        assert generate(LOADED, PROMPTS, sampled, batch_size=2) == expected


def test_sampled_frequencies_are_the_probabilities() -> None:
    """Uniform numbers cut the cumulative distribution: over a grid of them each token gets its share."""
    logits = torch.log(torch.tensor([[0.5, 0.125, 0.25, 0.125]])).repeat(800, 1)
    grid = (np.arange(800) + 0.5) / 800
    drawn = choose_tokens(logits, GenerationOptions(temperature=1.0), grid)
    assert torch.bincount(drawn).tolist() == [400, 100, 200, 100]
    best_two = choose_tokens(logits, GenerationOptions(temperature=1.0, top_k=2), grid)
    assert torch.bincount(best_two, minlength=4).tolist() == pytest.approx([533, 0, 267, 0], abs=1)
    nucleus = choose_tokens(logits, GenerationOptions(temperature=1.0, top_p=0.7), grid)
    assert torch.bincount(nucleus, minlength=4).tolist() == pytest.approx([533, 0, 267, 0], abs=1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, GenerationOptions()),
        ({"until": "\n", "do_sample": False, "temperature": 0.7}, GenerationOptions(stop=("\n",))),
        ({"until": ["a", ""], "max_new_tokens": 9}, GenerationOptions(stop=("a",), max_tokens=9)),
        ({"max_gen_toks": 5, "max_tokens": 7}, GenerationOptions(max_tokens=5)),
        ({"do_sample": True}, GenerationOptions(temperature=1.0)),
        ({"temperature": "0.5", "top_k": 3, "top_p": 0.9}, GenerationOptions((), 256, 0.5, 3, 0.9)),
        ({"num_beams": 1, "repetition_penalty": 1.0, "until": None}, GenerationOptions()),
    ],
)
def test_options_are_read_as_lm_eval_writes_them(values: dict[str, object], expected: GenerationOptions) -> None:
    """Aliases, single strings and defaults of `generation_kwargs`."""
    assert parse_options(values) == expected


@pytest.mark.parametrize(
    "values",
    [{"num_beams": 4}, {"extra": 1}, {"max_gen_toks": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"max_tokens": "x"}],
)
def test_options_that_cannot_be_obeyed_are_refused(values: dict[str, object]) -> None:
    """Never ignored: what is unknown or out of range is an error that shows it."""
    with pytest.raises(TaskError, match=next(iter(values))):
        parse_options(values)
