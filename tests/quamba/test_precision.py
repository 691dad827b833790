"""Products in half precision: nearly the same model, with everything between products in float32."""

from pathlib import Path

import pytest
import torch

from quamba.errors import ModelError, RecipeError
from quamba.flow.batches import batch_documents
from quamba.flow.quantize import quantize
from quamba.flow.recipe import Recipe
from quamba.models.loading import load_model
from quamba.models.precision import in_dtype
from tests.quamba.checkpoints import small_config, write_checkpoint

IDS = torch.tensor([[5, 9, 11, 4, 2, 8, 1]])


@pytest.mark.parametrize("family", ["mamba1", "mamba2"])
@pytest.mark.parametrize(("name", "least_db"), [("float16", 40.0), ("bfloat16", 25.0)])
def test_products_alone_run_in_half_precision(family: str, name: str, least_db: float, tmp_path: Path) -> None:
    """Logits differ by the products' rounding; weights of recurrence, convolution and norms are the same tensors."""
    loaded = load_model(str(write_checkpoint(tmp_path, small_config(family))))
    half = in_dtype(loaded, name)
    expected, found = loaded.model(IDS), half.model(IDS)
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected)
    assert 10 * torch.log10(expected.square().mean() / (found - expected).square().mean()) > least_db
    before, after = dict(loaded.model.named_buffers()), dict(half.model.named_buffers())
    changed = {key for key in before if after[key] is not before[key]}
    assert changed == {key for key in before if key.endswith(("proj.weight", "embedding.weight", "lm_head.weight"))}
    assert {after[key].dtype for key in changed} == {getattr(torch, name)}
    assert half.model.lm_head.weight is half.model.embedding.weight
    assert torch.equal(loaded.model(IDS), expected)


def test_steps_go_on_from_a_prompt(tmp_path: Path) -> None:
    """Prompt and step in half precision say what the whole text does."""
    model = in_dtype(load_model(str(write_checkpoint(tmp_path, small_config("mamba2")))), "float16").model
    cache = model.new_cache(1)
    model.prefill(IDS[:, :-1], None, cache)
    assert torch.allclose(model.step(IDS[:, -1], cache), model(IDS)[:, -1], atol=2e-2)


def test_half_precision_is_not_quantized(tmp_path: Path) -> None:
    """Scales would be those of rounded weights."""
    half = in_dtype(load_model(str(write_checkpoint(tmp_path, small_config("mamba1")))), "float16")
    with pytest.raises(RecipeError, match="float32 weights"):
        list(quantize(half.model, Recipe(), batch_documents([[1, 2, 3]], 1)))


def test_what_has_no_such_type_is_refused(tmp_path: Path) -> None:
    """A name that is none; float32 is the model as it is."""
    loaded = load_model(str(write_checkpoint(tmp_path, small_config("mamba1"))))
    assert in_dtype(loaded, "float32") is loaded
    with pytest.raises(ModelError, match="no dtype 'int8'"):
        in_dtype(loaded, "int8")
