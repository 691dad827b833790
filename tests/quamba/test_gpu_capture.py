"""Prompts and steps of any model as CUDA graphs: what the model itself says, bit for bit."""

from typing import Any

import pytest
import torch

from quamba.decoding.capture import CapturedPrefill, CapturedStep
from quamba.flow.batches import batch_documents
from quamba.flow.quantize import quantize
from quamba.flow.recipe import Recipe
from tests.quamba.checkpoints import small_config
from tests.quamba.test_rotation import model_of

pytestmark = pytest.mark.gpu
DOCUMENTS = [[(7 * row + 3 * place) % 60 for place in range(5 + 41 * row)] for row in range(4)]


@pytest.mark.parametrize("family", ["mamba1", "mamba2"])
@pytest.mark.parametrize("recipe", [None, Recipe(), Recipe(w_bits=4, a_bits=16)])
@torch.no_grad()
def test_graphs_say_what_the_model_says(family: Any, recipe: Recipe | None) -> None:
    """For one prompt and then another of the same shape, and some steps behind each."""
    model = model_of(small_config(family, vocab_size=60)).to("cuda")
    if recipe is not None:
        list(quantize(model, recipe, batch_documents(DOCUMENTS, batch_size=4)))
    read, step = CapturedPrefill(model, 2, 7), None
    for seed in (0, 1):
        torch.manual_seed(seed)
        ids = torch.randint(0, 60, (2, 7), device="cuda")
        own = model.new_cache(2)
        expected = model.prefill(ids, None, own)
        logits, cache = read(ids)
        assert torch.equal(logits, expected)
        if step is None:
            step = CapturedStep(model, cache, 2)
        step.load(cache)
        for token in range(3):
            more = torch.tensor([token, 50 - token], device="cuda")
            assert torch.equal(step.step(more), model.step(more, own))
