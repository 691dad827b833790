"""Laws of the decoding loop: greedy is transformers', rows are alone in their batch, draws follow the softmax."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from quamba.errors import RecipeError
from quamba.flow.calibrate import batch_documents
from quamba.flow.quantize import quantize
from quamba.flow.recipe import Recipe
from quamba.generation import generate
from quamba.generation_options import GenerationOptions, Sampling
from quamba.models.loading import load_model
from quamba.nn.model import MambaLM
from tests.quamba.checkpoints import random_state_dict, small_config, write_checkpoint
from tests.quamba.test_models import to_transformers

FAMILIES = ["mamba1", "mamba2"]
GREEDY = Sampling(temperature=0.0)
PROMPTS = [[17, 300, 5], [42], list(range(900, 961)), [8, 9, 10, 11, 12, 1000], [17, 300, 5]]


class Fixed:
    """A model whose next token has the same logits after every text; it has nothing to remember."""

    device = torch.device("cpu")

    def __init__(self, logits: Sequence[float]) -> None:
        self.logits = torch.tensor([list(logits)])
        self.widths: list[int] = []

    def new_cache(self, batch_size: int) -> "Fixed":
        del batch_size
        return self

    def select(self, rows: Tensor) -> "Fixed":
        del rows
        return self

    def prefill(self, input_ids: Tensor, lengths: Tensor | None, cache: "Fixed") -> Tensor:
        del lengths
        return self.step(input_ids[:, 0], cache)

    def step(self, input_ids: Tensor, cache: "Fixed") -> Tensor:
        del cache
        self.widths.append(len(input_ids))
        return self.logits.repeat(len(input_ids), 1)


def written(model: Any, prompts: Sequence[Sequence[int]], options: GenerationOptions, **how: Any) -> list[list[int]]:
    """The tokens of each row."""
    rows: list[list[int]] = [[] for _ in prompts]
    for step in generate(model, prompts, options, **how):
        for new in step:
            rows[new.row].append(new.token)
    return rows


def until(ends: dict[int, int]) -> Callable[[int], bool]:
    """Ends each row after so many tokens."""
    counts = dict.fromkeys(ends, 0)

    def wanted(row: int) -> bool:
        counts[row] += 1
        return counts[row] < ends[row]

    return wanted


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[MambaLM, Any]:
    """A small random model, here and in transformers."""
    config = small_config(request.param)
    state = random_state_dict(config, seed=3)
    directory: Path = write_checkpoint(tmp_path_factory.mktemp("generation") / "model", config, state)
    return load_model(str(directory)).model, to_transformers(config, state)


def by_transformers(model: Any, prompt: list[int], **options: Any) -> list[int]:
    """What transformers' own loop writes."""
    ids = torch.tensor([prompt])
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=16, pad_token_id=0, **options
    )
    tokens: list[int] = output[0, len(prompt) :].tolist()
    return tokens


@pytest.mark.filterwarnings("ignore")  # transformers warns of its slow path, and of things to come in torch
@pytest.mark.parametrize("penalty", [1.0, 1.7])
def test_greedy_is_transformers_generate(pair: tuple[MambaLM, Any], penalty: float) -> None:
    """Token for token, with a repetition penalty too, which counts the prompt's tokens."""
    ours, theirs = pair
    options = GenerationOptions(Sampling(temperature=0.0, repetition_penalty=penalty), max_new_tokens=16)
    for prompt in PROMPTS[:4]:
        expected = by_transformers(theirs, prompt, repetition_penalty=penalty, eos_token_id=None)
        assert written(ours, [prompt], options) == [expected]


@pytest.mark.filterwarnings("ignore")
def test_the_end_of_text_ends_a_row_as_in_transformers(pair: tuple[MambaLM, Any]) -> None:
    """It is the last token, and says why; the others go on."""
    ours, theirs = pair
    options = GenerationOptions(GREEDY, max_new_tokens=16)
    free = written(ours, PROMPTS, options)
    eos = free[0][5]
    expected = [by_transformers(theirs, prompt, eos_token_id=eos) for prompt in PROMPTS]
    steps = list(generate(ours, PROMPTS, options, eos_token_id=eos))
    rows = [[new.token for step in steps for new in step if new.row == row] for row in range(len(PROMPTS))]
    assert rows == expected
    reasons = {new.row: new.finish_reason for step in steps for new in step if new.finish_reason}
    assert reasons == {row: "eos" if tokens[-1] == eos else "length" for row, tokens in enumerate(rows)}
    assert set(reasons.values()) == {"eos", "length"}


@pytest.mark.parametrize(
    "sampling",
    [GREEDY, Sampling(), Sampling(temperature=1.5, top_k=50, top_p=0.9, min_p=0.01, repetition_penalty=1.2)],
)
def test_a_batch_is_its_rows(pair: tuple[MambaLM, Any], sampling: Sampling) -> None:
    """A row's tokens are those it has alone, whatever the lengths of its neighbours and whenever they leave."""
    model, _ = pair
    options = GenerationOptions(sampling, max_new_tokens=12, seed=5)
    alone = [written(model, [prompt], options, streams=[row])[0] for row, prompt in enumerate(PROMPTS)]
    assert written(model, PROMPTS, options) == alone
    ends = {0: 3, 1: 12, 2: 1, 3: 7, 4: 12}
    assert written(model, PROMPTS, options, wanted=until(ends)) == [
        tokens[: ends[row]] for row, tokens in enumerate(alone)
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_quantized_model_writes_too(family: str, tmp_path: Path) -> None:
    """Its memory is in codes; rows that leave take theirs with them."""
    model = load_model(str(write_checkpoint(tmp_path, small_config(family)))).model
    list(quantize(model, Recipe(), batch_documents([list(range(7, 400, 3))], 1)))
    options = GenerationOptions(GREEDY, max_new_tokens=6)
    alone = [written(model, [prompt], options)[0] for prompt in PROMPTS]
    ends = {row: row + 1 for row in range(len(PROMPTS))}
    assert written(model, PROMPTS, options, wanted=until(ends)) == [
        tokens[: ends[row]] for row, tokens in enumerate(alone)
    ]


def test_a_seed_is_a_text(pair: tuple[MambaLM, Any]) -> None:
    """The same seed gives the same tokens, another one others; equal prompts in one batch differ."""
    model, _ = pair
    sampling = Sampling(temperature=3.0)
    first, again, other = (written(model, PROMPTS, GenerationOptions(sampling, seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert all(ours != theirs for ours, theirs in zip(first, other, strict=True))
    assert first[0] != first[4]


def test_global_generators_are_left_alone(pair: tuple[MambaLM, Any]) -> None:
    """Drawing neither reads nor changes torch's own state."""
    before = torch.get_rng_state()
    first = written(pair[0], PROMPTS, GenerationOptions(seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert written(pair[0], PROMPTS, GenerationOptions(seed=1)) == first
    torch.set_rng_state(before)


@pytest.mark.parametrize("by", ["rows", "steps"])
def test_drawn_tokens_follow_the_softmax(by: str) -> None:
    """Chi-square of 4000 tokens against softmax(logits / T), over rows and over one row's steps."""
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0, 0.5])
    rows, steps = (2000, 2) if by == "rows" else (1, 4000)
    options = GenerationOptions(Sampling(temperature=1.3), max_new_tokens=steps, seed=11)
    tokens = written(Fixed(logits.tolist()), [[0]] * rows, options)
    counts = torch.bincount(torch.tensor(tokens).flatten(), minlength=5)
    expected = (logits.double() / 1.3).softmax(0) * 4000
    assert ((counts - expected) ** 2 / expected).sum() < 13.28  # of 4 degrees of freedom, 1 in 100 lies above


def test_rows_that_are_done_leave_the_batch() -> None:
    """Nothing is computed for them any more, and nothing at all when none is left."""
    model = Fixed([0.0, 1.0])
    ends = iter([True, False, True, True, False, False])
    steps = list(generate(model, [[0]] * 3, GenerationOptions(GREEDY), wanted=lambda _: next(ends)))
    assert [[new.row for new in step] for step in steps] == [[0, 1, 2], [0, 2], [0]]
    assert model.widths == [3, 2, 1]


def test_what_pads_the_vocabulary_is_never_chosen() -> None:
    """Ids from vocab_size on mean nothing, however likely the model finds them."""
    model = Fixed([1.0, 2.0, 50.0])
    for sampling in (GREEDY, Sampling(), Sampling(top_k=1, repetition_penalty=1.5)):
        options = GenerationOptions(sampling, max_new_tokens=20)
        assert {2} == set(written(model, [[0]], options)[0])
        assert written(model, [[0, 2]], options, vocab_size=2)[0].count(2) == 0


def test_it_streams() -> None:
    """A step's tokens are there before the next step is computed."""
    model = Fixed([0.0, 1.0])
    steps = generate(model, [[0], [0, 1]], GenerationOptions(GREEDY, max_new_tokens=5))
    for computed in range(1, 6):
        next(steps)
        assert len(model.widths) == computed
    with pytest.raises(StopIteration):
        next(steps)


def test_prompts_that_cannot_be_continued_are_refused() -> None:
    """At the call, not at the first step; no prompts are no work."""
    with pytest.raises(RecipeError, match="prompt 1 has no tokens"):
        generate(Fixed([0.0]), [[0], []], GenerationOptions())
    with pytest.raises(RecipeError, match="2 streams for 1 prompts"):
        generate(Fixed([0.0]), [[0]], GenerationOptions(), streams=[1, 2])
    assert list(generate(Fixed([0.0]), [], GenerationOptions())) == []
