"""Models of published sizes with random weights."""

from dataclasses import replace

import pytest
import torch

from quamba.errors import ModelError
from quamba.models.published import SHAPES, published_config, random_model


@pytest.mark.parametrize("shape", SHAPES)
def test_a_published_size_is_what_was_published(shape: str) -> None:
    """Parameters of all layers and of a tied embedding, in millions, as the papers' names have them."""
    c = published_config(shape)
    E, N, C = c.d_inner, c.d_state, c.conv_dim
    if c.family == "mamba1":
        R = c.dt_rank
        mixer = 2 * E * c.d_model + 5 * C + (R + 2 * N) * E + (R + 1) * E + N * E + E
    else:
        mixer = (E + C + c.nheads) * c.d_model + 5 * C + 3 * c.nheads + E
    total = c.n_layer * (mixer + E * c.d_model + c.d_model) + 50280 * c.d_model + c.d_model
    name = shape.partition("-")[2]
    named = float(name[:-1]) * {"m": 1e6, "b": 1e9}[name[-1]]
    assert total == pytest.approx(named, rel=0.04)


@pytest.mark.parametrize("shape", ["mamba-130m", "mamba2-130m"])
def test_random_weights_make_a_model(shape: str) -> None:
    """The same seed the same one, with logits that are neither infinite nor all alike."""
    config = replace(published_config(shape), n_layer=2, vocab_size=100)
    ids = torch.arange(12)[None]
    first, second, other = (random_model(config, torch.device("cpu"), seed=seed)(ids) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert first.isfinite().all()
    assert first.std() > 0.1


def test_other_shapes_are_refused_with_those_that_there_are() -> None:
    """By name."""
    with pytest.raises(ModelError, match="mamba2-780m"):
        published_config("mamba2-3b")
