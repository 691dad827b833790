"""Whole models decoded by the fused kernels, against their own steps; interpreted where there is no GPU."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from quamba.flow.batches import batch_documents
from quamba.flow.quantize import quantize
from quamba.flow.recipe import Recipe
from quamba.models.config import Family
from quamba.nn.model import MambaLM
from tests.quamba.checkpoints import small_config
from tests.quamba.test_rotation import model_of

pytest.importorskip("triton", reason="Triton is not installed")

from quamba.decoding.choice import VARIABLE, decoder_of, disagreement
from quamba.decoding.graphed import GraphedDecoder
from quamba.decoding.plan import NotFusedError
from quamba.decoding.runner import DecodeRunner, Plan
from quamba.kernels.launch import Launch
from tests.quamba.kernel_device import DEVICE, GPU, sqnr_db
from tests.quamba.test_triton_kernels import HOW

DOCUMENTS = [[(7 * row + 3 * place) % 60 for place in range(5 + 41 * row)] for row in range(4)]


def quantized(recipe: Recipe, family: Family = "mamba2", **changes: Any) -> MambaLM:
    model = model_of(small_config(family, vocab_size=60, **changes))
    list(quantize(model, recipe, batch_documents(DOCUMENTS, batch_size=4)))
    return model.to(DEVICE)


ENDS = {"quantize_embedding": True, "quantize_lm_head": True}
MODELS: dict[str, tuple[Recipe, dict[str, Any]]] = {
    "mamba2": (Recipe(**ENDS), {"ssm_headdim": 16}),
    "mamba2 in groups": (
        Recipe(group_heads=True),
        {"d_model": 32, "ssm_ngroups": 2, "ssm_headdim": 8, "n_layer": 1},
    ),
    "mamba2 without norm": (
        Recipe(rotate=False, quantize_lm_head=True),
        {"ssm_rmsnorm": False, "ssm_D_has_hdim": True, "ssm_dt_limit": [0.1, 0.5], "n_layer": 1},
    ),
    "mamba2 with the norm first": (Recipe(w_bits=4), {"ssm_norm_before_gate": True, "n_layer": 1}),
    "mamba2 of four bits": (Recipe(w_bits=4, **ENDS), {"d_model": 256, "ssm_headdim": 16, "n_layer": 1}),
    "mamba2 of four bits and floats": (
        Recipe(w_bits=4, a_bits=16, **ENDS),
        {"d_model": 128, "ssm_headdim": 8, "ssm_ngroups": 2, "n_layer": 1},
    ),
    "mamba1 of four bits and floats": (
        Recipe(w_bits=4, a_bits=16, **ENDS),
        {"family": "mamba1", "d_model": 128, "ssm_d_state": 5, "ssm_d_conv": 3, "n_layer": 1},
    ),
    "mamba2 of floats without rotation": (
        Recipe(w_bits=4, a_bits=16, rotate=False),
        {
            "d_model": 128,
            "ssm_headdim": 16,
            "ssm_rmsnorm": False,
            "ssm_D_has_hdim": True,
            "ssm_d_conv": 3,
            "n_layer": 1,
        },
    ),
    "mamba1": (Recipe(**ENDS), {"family": "mamba1", "n_layer": 1}),
    "mamba1 of four bits": (Recipe(w_bits=4), {"family": "mamba1", "ssm_d_state": 5, "ssm_d_conv": 3}),
    "mamba1 without rotation": (Recipe(rotate=False), {"family": "mamba1"}),
}
# In the interpreter each takes many seconds: one of each family is always run.
ALWAYS = ("mamba2 in groups", "mamba1")


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        pytest.param(*case, id=name, marks=() if name in ALWAYS else (pytest.mark.long, pytest.mark.gpu))
        for name, case in MODELS.items()
    ],
)
def test_steps_of_a_model(recipe: Recipe, changes: dict[str, Any]) -> None:
    """Behind a prompt, rows that leave, and two texts in turn: the model's own steps, and its memory afterwards."""
    model = quantized(recipe, **changes)
    decoder = GraphedDecoder(Plan.of(model), HOW, graph=GPU)
    prompt = torch.tensor([[1, 2, 3, 4, 5], [9, 8, 7, 6, 5]], device=DEVICE)
    cache, own = decoder.new_cache(2), model.new_cache(2)
    assert torch.equal(decoder.prefill(prompt, None, cache), model.prefill(prompt, None, own))
    rows = torch.tensor([1], device=DEVICE)
    for token in range(2):
        ids = torch.tensor([token, 5], device=DEVICE)
        assert sqnr_db(decoder.step(ids, cache), model.step(ids, own)) > 40
    cache, own = cache.select(rows), own.select(rows)
    other, its_own = decoder.new_cache(1), model.new_cache(1)
    for token in range(2):
        ids = torch.tensor([token + 20], device=DEVICE)
        assert sqnr_db(decoder.step(ids, cache), model.step(ids, own)) > 40
        assert sqnr_db(decoder.step(ids, other), model.step(ids, its_own)) > 40
    for found, expected in zip(cache.settle().layers, own.layers, strict=True):
        if isinstance(found.state, torch.Tensor):
            assert sqnr_db(found.conv, expected.conv) > 60
            assert sqnr_db(found.state, expected.state) > 60
            continue
        assert (found.conv != expected.conv).float().mean() < 0.01
        assert (found.state.codes.int() - expected.state.codes.int()).abs().max() <= 1


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"ssm_headdim": 16, "n_layer": 1}, marks=(pytest.mark.long, pytest.mark.gpu)),
        pytest.param({"family": "mamba1", "n_layer": 1}, marks=(pytest.mark.long, pytest.mark.gpu)),
    ],
)
def test_many_rows_at_once(changes: dict[str, Any]) -> None:
    """Batches that products on tensor cores take: the model's own steps again, row by row."""
    model = quantized(Recipe(**ENDS), **changes)
    how = HOW if GPU else Launch(device=False, few=1, tile=((16, 64, 64), 4, 2))
    rows = 37 if GPU else 2
    decoder = GraphedDecoder(Plan.of(model), how, graph=GPU)
    cache, own = decoder.new_cache(rows), model.new_cache(rows)
    for token in range(2):
        ids = (torch.arange(rows, device=DEVICE) * 7 + token) % 60
        assert sqnr_db(decoder.step(ids, cache), model.step(ids, own)) > 40


def test_fewer_launches_say_the_same() -> None:
    """A product in the launch of the one before it, token by token: bit for bit; on a GPU whichever is taken."""
    model = quantized(Recipe(), family="mamba1", n_layer=1, ssm_d_state=2)
    plan = Plan.of(model)
    runners = [DecodeRunner(plan, 1, replace(HOW, chained=chained), graph=False) for chained in (False, True)]
    if GPU:
        runners.append(DecodeRunner(plan, 1, HOW, graph=True))
    for token in (3, 50, 3):
        ids = torch.tensor([token], device=DEVICE)
        first, *others = [runner.step(ids) for runner in runners]
        assert all(torch.equal(first, other) for other in others)


def test_models_without_kernels_say_so() -> None:
    """Float models, float activations and heads of odd sizes are not run by kernels that are not made for them."""
    for model in (
        model_of(small_config("mamba2")),
        quantized(Recipe(w_bits=4, a_bits=16)),
        quantized(Recipe(), d_model=40, ssm_headdim=20),
    ):
        with pytest.raises(NotFusedError):
            DecodeRunner(Plan.of(model), 1, HOW, graph=False)


def test_wrong_kernels_are_found_out() -> None:
    """A decoder that says something else than its model, or fails, is told from one that agrees."""
    model = quantized(Recipe(), family="mamba1", n_layer=1, ssm_d_state=2)
    right = GraphedDecoder(Plan.of(model), HOW, graph=GPU)
    assert disagreement(right, model) is None
    plan = Plan.of(model)
    plan.layers[0].out_proj.scale.mul_(-1)
    reason = disagreement(GraphedDecoder(plan, HOW, graph=GPU), model)
    assert reason is not None
    assert "logits" in reason
    failing = GraphedDecoder(plan, replace(HOW, other=(3, 4)), graph=GPU)
    assert "fail" in str(disagreement(failing, model))


@pytest.mark.gpu
def test_batches_that_kernels_cannot_run_are_the_models_own(caplog: pytest.LogCaptureFixture) -> None:
    """Once said, and the same logits as without kernels."""
    model = quantized(Recipe(), ssm_headdim=16, n_layer=1)
    how = replace(HOW, few=0, tile=((16, 48, 64), 4, 2))
    decoder = GraphedDecoder(Plan.of(model), how, graph=GPU)
    cache, own = decoder.new_cache(2), model.new_cache(2)
    for token in range(2):
        ids = torch.tensor([token, 5], device=DEVICE)
        assert torch.equal(decoder.step(ids, cache), model.step(ids, own))
    said = [record.levelname for record in caplog.records if record.name == "quamba.decoding.graphed"]
    assert said == ["WARNING"]


def test_memory_that_is_not_used_is_given_back_and_taken_again() -> None:
    """What another text has stays; the one whose memory went on elsewhere goes on as before."""
    model = quantized(Recipe(), family="mamba1", n_layer=1, ssm_d_state=2, d_model=16)
    decoder = GraphedDecoder(Plan.of(model), HOW, graph=GPU)
    (one, own), (two, twos_own) = ((decoder.new_cache(rows), model.new_cache(rows)) for rows in (1, 2))
    first, pair = torch.tensor([7], device=DEVICE), torch.tensor([3, 9], device=DEVICE)
    for cache, kept, ids in ((one, own, first), (two, twos_own, pair)):
        decoder.step(ids, cache)
        model.step(ids, kept)
    one.settle()
    assert decoder.sizes == (1, 2)
    decoder.release()
    assert decoder.sizes == (2,)
    for cache, kept, ids in ((one, own, first), (two, twos_own, pair)):
        assert sqnr_db(decoder.step(ids, cache), model.step(ids, kept)) > 40
    assert decoder.sizes == (2, 1)


def test_kernels_need_a_gpu_and_can_be_declined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere than on a CUDA device, or where the variable says so, a model decodes by itself."""
    model = quantized(Recipe(), ssm_headdim=16).cpu()
    monkeypatch.delenv(VARIABLE, raising=False)
    assert decoder_of(model) is model
    if GPU:
        assert isinstance(decoder_of(model.to(DEVICE)), GraphedDecoder)
        monkeypatch.setenv(VARIABLE, "0")
        assert decoder_of(model) is model
