"""A model's own steps behind the interface of generation, in batches of powers of two."""

import pytest
import torch

from quamba.decoding.captured import CapturedDecoder
from quamba.flow.batches import batch_documents
from quamba.flow.quantize import quantize
from quamba.flow.recipe import Recipe
from tests.quamba.checkpoints import small_config
from tests.quamba.test_rotation import model_of

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")


@pytest.mark.parametrize("a_bits", [8, 16])
def test_own_steps_in_turn(a_bits: int) -> None:
    """Two texts in turn, rows that leave, a batch that is no power of two: what the model says by itself."""
    model = model_of(small_config("mamba2", vocab_size=60, n_layer=1))
    list(quantize(model, Recipe(w_bits=4, a_bits=a_bits), batch_documents([[1, 2, 3, 4]] * 2, batch_size=2)))
    model.to(DEVICE)
    decoder = CapturedDecoder(model, graph=GPU)
    prompt = torch.tensor([[1, 2, 3], [9, 8, 7], [4, 4, 4]], device=DEVICE)
    cache, own = decoder.new_cache(3), model.new_cache(3)
    other, its_own = decoder.new_cache(3), model.new_cache(3)
    decoder.prefill(prompt, None, cache)
    decoder.prefill(prompt.flip(0), None, other)
    model.prefill(prompt, None, own)
    model.prefill(prompt.flip(0), None, its_own)
    for token in range(2):
        ids = torch.tensor([token, 5, 6], device=DEVICE)
        torch.testing.assert_close(decoder.step(ids, cache), model.step(ids, own), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(decoder.step(ids, other), model.step(ids, its_own), rtol=1e-3, atol=1e-3)
    rows = torch.tensor([2, 0], device=DEVICE)
    cache, own = cache.select(rows), own.select(rows)
    ids = torch.tensor([30, 31], device=DEVICE)
    torch.testing.assert_close(decoder.step(ids, cache), model.step(ids, own), rtol=1e-3, atol=1e-3)
    assert decoder.sizes == (4, 2)
