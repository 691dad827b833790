"""Whole prompts by the fused kernels, against the model's own; interpreted where there is no GPU."""

from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from quamba.decoding.runner import Plan
from quamba.flow.recipe import Recipe
from quamba.prompts.reader import PromptReader
from tests.quamba.test_triton_decode import MODELS, quantized
from tests.quamba.test_triton_kernels import DEVICE, HOW, sqnr_db

# In the interpreter each takes seconds: one of each family is always run.
ALWAYS = ("mamba2 in groups", "mamba1")


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        pytest.param(*case, id=name, marks=() if name in ALWAYS else (pytest.mark.long, pytest.mark.gpu))
        for name, case in MODELS.items()
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
        expected = model.hidden_states(ids, lengths, cache=own)
        live = torch.arange(width, device=DEVICE) < lengths[:, None]
        assert sqnr_db(found[live], expected[live]) > 35
    for mine, theirs in zip(cache.layers, own.layers, strict=True):
        assert sqnr_db(mine.conv, theirs.conv) > 30
        assert sqnr_db(mine.state.codes, theirs.state.codes) > 30
        assert torch.equal(mine.state.scale, theirs.state.scale)
