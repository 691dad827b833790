"""Whole prompts by the fused kernels, against the model's own; interpreted where there is no GPU."""

from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from quamba.decoding.choice import VARIABLE, reader_of, reading_disagreement
from quamba.decoding.plan import NotFusedError
from quamba.decoding.runner import DecodeRunner, Plan
from quamba.flow.recipe import Recipe
from quamba.nn.cache import Cache
from quamba.nn.model import MambaLM
from quamba.prompts.reader import PromptReader
from quamba.qtypes import to_float
from tests.quamba.kernel_device import DEVICE, GPU, sqnr_db
from tests.quamba.test_triton_decode import MODELS, quantized
from tests.quamba.test_triton_kernels import HOW

# In the interpreter each takes seconds: one of each family is always run.
ALWAYS = ("mamba2 in groups", "mamba1")
HYBRID: dict[str, tuple[Recipe, dict[str, Any]]] = {
    "hybrid": (Recipe(w_bits=4, hybrid=("W4A8", "W4A16")), {"d_model": 256, "n_layer": 2})
}


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        pytest.param(*case, id=name, marks=() if name in ALWAYS else (pytest.mark.long, pytest.mark.gpu))
        for name, case in (MODELS | HYBRID).items()
        if case[0].a_bits == 8
    ],
)
def test_prompts_of_a_model(recipe: Recipe, changes: dict[str, Any]) -> None:
    """Rows of different lengths, then more behind them: hidden states and memory are the model's own."""
    # Heads of 8 channels are a step's only.
    model = quantized(recipe, **{**changes, "ssm_headdim": 16})
    reader = PromptReader(Plan.of(model), HOW)
    generator = torch.Generator().manual_seed(3)
    cache, own = model.new_cache(3), model.new_cache(3)
    for width, real in ((37, [37, 1, 20]), (7, [2, 7, 5])):
        ids = torch.randint(0, 60, (3, width), generator=generator).to(DEVICE)
        lengths = torch.tensor(real, device=DEVICE)
        found = reader.hidden_states(ids, lengths, cache)
        expected = model.own_hidden_states(ids, lengths, own)
        live = torch.arange(width, device=DEVICE) < lengths[:, None]
        assert sqnr_db(found[live], expected[live]) > 35
    for mine, theirs in zip(cache.layers, own.layers, strict=True):
        assert sqnr_db(mine.conv, theirs.conv) > 30
        assert sqnr_db(to_float(mine.state), to_float(theirs.state)) > 30
        assert type(mine.state) is type(theirs.state)


def test_prompts_of_floats_are_the_models_own() -> None:
    """No reader is made of a model without 8-bit activations."""
    plan = Plan.of(quantized(Recipe(w_bits=4, a_bits=16), ssm_headdim=16, d_model=128, n_layer=1))
    assert plan.of_floats
    with pytest.raises(NotFusedError, match="floats"):
        PromptReader(plan, HOW)


def test_steps_go_on_from_a_prompt() -> None:
    """Both by kernels: logits of a prompt and single tokens behind it are those of all of it in one."""
    model = quantized(Recipe(quantize_lm_head=True), family="mamba1", n_layer=1)
    plan, ids = Plan.of(model), torch.tensor([[5, 1, 40, 7, 22, 3]], device=DEVICE)
    whole = model.head(model.own_hidden_states(ids))
    cache = model.new_cache(1)
    read = model.head(PromptReader(plan, HOW).hidden_states(ids[:, :4], None, cache))
    assert sqnr_db(read, whole[:, :4]) > 35
    runner = DecodeRunner(plan, 1, HOW, graph=GPU)
    runner.load(cache)
    for place in (4, 5):
        assert sqnr_db(runner.step(ids[:, place]), whole[:, place]) > 25


class FakeReader:
    """Reads as a model does, times a factor; 0: not at all."""

    def __init__(self, model: MambaLM, factor: int) -> None:
        self.model, self.factor = model, factor

    def hidden_states(self, input_ids: torch.Tensor, lengths: torch.Tensor | None, cache: Cache) -> torch.Tensor:
        return self.model.own_hidden_states(input_ids, lengths, cache) * (1 // self.factor)


def test_wrong_readers_are_found_out() -> None:
    """One that says something else than its model, or fails, is told from one that agrees."""
    model = quantized(Recipe(), ssm_headdim=16, n_layer=1)
    assert reading_disagreement(FakeReader(model, 1), model) is None
    assert "logits" in str(reading_disagreement(FakeReader(model, -1), model))
    assert "fail" in str(reading_disagreement(FakeReader(model, 0), model))


def test_prompts_that_are_not_for_kernels_are_the_models_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off a GPU, where the variable says so, of heads that are too small, and of rows too long to be counted."""
    model = quantized(Recipe(), ssm_headdim=16, n_layer=1)
    assert PromptReader(Plan.of(model), HOW).takes(8, 2048)
    assert not PromptReader(Plan.of(model), HOW).takes(1, 1 << 30)
    monkeypatch.delenv(VARIABLE, raising=False)
    assert reader_of(model.cpu()) is None
    if GPU:
        assert isinstance(reader_of(model.to(DEVICE)), PromptReader)
        monkeypatch.setenv(VARIABLE, "0")
        assert reader_of(model) is None
    with pytest.raises(NotFusedError):
        PromptReader(Plan.of(quantized(Recipe(), ssm_headdim=8, n_layer=1)), HOW)
