"""Laws of choosing tokens: the processors are transformers', the draw follows the softmax, wrong values are refused."""

import math
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quamba.errors import RecipeError
from quamba.generation_options import GenerationOptions, Sampling
from quamba.sampling import (
    apply_temperature,
    draw_tokens,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalize_repetition,
    process_logits,
)


@st.composite
def logit_rows(draw: st.DrawFn) -> Tensor:
    """Logits [Bt, V] of any spread, with ties where they are rounded."""
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 300))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    logits = torch.randn(shape, generator=generator) * draw(st.sampled_from([0.1, 1.0, 5.0, 40.0]))
    return logits.round(decimals=1) if draw(st.booleans()) else logits


def some_ids(logits: Tensor, count: int = 7) -> Tensor:
    """Token ids [Bt, count], with repetitions."""
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, logits.shape[1], (len(logits), count), generator=generator)


def seen_of(ids: Tensor, logits: Tensor) -> Tensor:
    return torch.zeros_like(logits, dtype=torch.bool).scatter_(1, ids, True)


@settings(deadline=None, max_examples=60)
@given(logit_rows(), st.floats(0.1, 5.0))
def test_the_repetition_penalty_is_transformers(logits: Tensor, penalty: float) -> None:
    """Seen tokens are penalized once, however often they are there."""
    from transformers.generation import RepetitionPenaltyLogitsProcessor

    ids = some_ids(logits)
    expected = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits)
    assert torch.equal(penalize_repetition(logits, seen_of(ids, logits), penalty), expected)


@settings(deadline=None, max_examples=60)
@given(logit_rows(), st.floats(0.05, 20.0))
def test_the_temperature_is_transformers(logits: Tensor, temperature: float) -> None:
    """The probabilities are those of the divided logits."""
    from transformers.generation import TemperatureLogitsWarper

    expected = TemperatureLogitsWarper(temperature)(torch.empty(0), logits).softmax(-1)
    assert torch.allclose(apply_temperature(logits, temperature).softmax(-1), expected, atol=1e-4)


@settings(deadline=None, max_examples=60)
@given(logit_rows(), st.integers(1, 400))
def test_top_k_is_transformers(logits: Tensor, top_k: int) -> None:
    """Ties and a k beyond the vocabulary included."""
    from transformers.generation import TopKLogitsWarper

    assert torch.equal(keep_top_k(logits, top_k), TopKLogitsWarper(top_k)(torch.empty(0), logits))


@settings(deadline=None, max_examples=60)
@given(logit_rows(), st.floats(1e-9, 1.0))
def test_top_p_is_transformers(logits: Tensor, top_p: float) -> None:
    """The nucleus is the same set."""
    from transformers.generation import TopPLogitsWarper

    assert torch.equal(keep_top_p(logits, top_p), TopPLogitsWarper(top_p)(torch.empty(0), logits))


@settings(deadline=None, max_examples=60)
@given(logit_rows(), st.floats(0.0, 1.0))
def test_min_p_is_transformers(logits: Tensor, min_p: float) -> None:
    """What is far less likely than the likeliest goes."""
    from transformers.generation import MinPLogitsWarper

    assert torch.equal(keep_min_p(logits, min_p), MinPLogitsWarper(min_p)(torch.empty(0), logits))


@cache
def transformers_model() -> Any:
    from transformers import MambaConfig, MambaForCausalLM

    return MambaForCausalLM(MambaConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, state_size=4))


def transformers_processors(sampling: Sampling) -> Any:
    """The list that transformers makes of the same options, in its own order."""
    from transformers import GenerationConfig

    config = GenerationConfig(
        do_sample=not sampling.greedy,
        temperature=sampling.temperature or None,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
    )
    return transformers_model()._get_logits_processor(config, input_ids_seq_length=7)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("temperature", [0.0, 0.6, 1.0, 1.9])
@pytest.mark.parametrize(("top_k", "top_p", "min_p"), [(0, 1.0, 0.0), (12, 0.8, 0.0), (0, 0.8, 0.04), (25, 0.93, 0.03)])
@pytest.mark.parametrize("repetition_penalty", [1.0, 1.3])
def test_all_together_are_applied_in_transformers_order(
    temperature: float, top_k: int, top_p: float, min_p: float, repetition_penalty: float
) -> None:
    """One after the other they leave the probabilities that transformers' own list leaves; other orders would not."""
    logits = torch.randn(32, 200, generator=torch.Generator().manual_seed(1)) * 1.5
    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
    ids = some_ids(logits)
    expected = transformers_processors(sampling)(ids, logits.clone())
    ours = process_logits(logits, sampling, seen_of(ids, logits))
    assert torch.allclose(ours.softmax(-1), expected.softmax(-1), atol=1e-5)


def test_extreme_values_leave_something_to_draw() -> None:
    """Temperatures near 0 and near infinity, and the narrowest filters, give probabilities."""
    logits = torch.tensor([[3e4, -3e4, 2.9e4, 0.0]])
    for sampling in (
        Sampling(temperature=5e-324),
        Sampling(temperature=1e-30, top_p=1e-300),
        Sampling(top_k=1, top_p=1e-9, min_p=1.0),
    ):
        assert process_logits(logits, sampling, None).softmax(-1).tolist() == [[1.0, 0.0, 0.0, 0.0]]
    assert torch.allclose(process_logits(logits, Sampling(temperature=1e300), None).softmax(-1), torch.tensor(0.25))


def test_drawn_tokens_are_cut_from_the_cumulative_distribution() -> None:
    """Over a grid of uniform numbers each token gets its share, and what is impossible none."""
    logits = torch.log(torch.tensor([[0.0, 0.5, 0.125, 0.25, 0.125, 0.0]])).repeat(800, 1)
    grid = (torch.arange(800, dtype=torch.float64) + 0.5) / 800
    assert torch.bincount(draw_tokens(logits, grid), minlength=6).tolist() == [0, 400, 100, 200, 100, 0]


@pytest.mark.parametrize("uniform", [0.0, 2**-53, 0.3, 1 - 2**-53])
def test_what_is_impossible_is_never_drawn(uniform: float) -> None:
    """At both ends of the uniform numbers too, where sums of probabilities are rounded to just above 1."""
    logits = torch.randn(4000, 60, generator=torch.Generator().manual_seed(2))
    logits[:, [0, 1, 30, -2, -1]] = -math.inf
    tokens = draw_tokens(logits, torch.full((len(logits),), uniform, dtype=torch.float64))
    assert torch.isfinite(logits.gather(1, tokens[:, None])).all()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"temperature": -0.1}, "temperature .* -0.1"),
        ({"temperature": math.nan}, "temperature .* nan"),
        ({"temperature": math.inf}, "temperature .* inf"),
        ({"top_k": -1}, "top_k .* -1"),
        ({"top_p": 0.0}, r"top_p .* 0\.0"),
        ({"top_p": 1.1}, r"top_p .* 1\.1"),
        ({"top_p": math.nan}, "top_p .* nan"),
        ({"min_p": -0.1}, "min_p .* -0.1"),
        ({"min_p": math.nan}, "min_p .* nan"),
        ({"repetition_penalty": 0.0}, r"repetition_penalty .* 0\.0"),
        ({"repetition_penalty": math.inf}, "repetition_penalty .* inf"),
    ],
)
def test_impossible_sampling_cannot_be_built(values: dict[str, Any], named: str) -> None:
    """The error is one line and names the value."""
    with pytest.raises(RecipeError, match=named) as failure:
        Sampling(**values)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("values", "named"),
    [({"max_new_tokens": 0}, "max_new_tokens .* 0"), ({"stop": ("a", "")}, "stop"), ({"seed": -1}, "seed .* -1")],
)
def test_impossible_options_cannot_be_built(values: dict[str, Any], named: str) -> None:
    """The error is one line and names the value."""
    with pytest.raises(RecipeError, match=named):
        GenerationOptions(**values)


def test_a_broken_model_still_gives_a_token() -> None:
    """NaN logits draw some token of the vocabulary: what such a model writes is seen, and a measurement goes on."""
    logits = torch.tensor([[math.nan] * 5, [0.0, math.nan, 1.0, 2.0, 3.0]])
    for sampling in (Sampling(), Sampling(top_k=2, top_p=0.5, min_p=0.1)):
        tokens = draw_tokens(process_logits(logits, sampling, None), torch.tensor([0.3, 0.7], dtype=torch.float64))
        assert ((tokens >= 0) & (tokens < 5)).all()
