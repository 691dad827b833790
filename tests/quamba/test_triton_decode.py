"""The fused kernels of a step: each against its definition, then whole models; interpreted where there is no GPU."""

from typing import Any

import pytest
import torch
from torch import Tensor

from quamba.flow.batches import batch_documents
from quamba.flow.quantize import quantize
from quamba.flow.recipe import Recipe
from quamba.nn.model import MambaLM
from tests.quamba.checkpoints import small_config
from tests.quamba.test_rotation import model_of

pytest.importorskip("triton", reason="Triton is not installed")

from quamba.decoding.choice import VARIABLE, decoder_of
from quamba.decoding.graphed import GraphedDecoder
from quamba.decoding.plan import NotFusedError
from quamba.decoding.runner import DecodeRunner, Plan
from quamba.kernels.launch import Launch
from quamba.kernels.triton_gemv import ADD, CODES, FLOAT, gemv, gemv_reference
from quamba.kernels.triton_join import join, join_reference
from quamba.kernels.triton_ssd_step import SSDStep, ssd_step, ssd_step_reference
from quamba.transforms.hadamard import hadamard_matrix

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
# The interpreter takes its time for each program, whatever its size.
HOW = Launch(device=GPU, pdl=GPU and torch.cuda.get_device_capability() >= (9, 0), other=None if GPU else (64, 4))
REAL = pytest.mark.gpu
DOCUMENTS = [[(7 * row + 3 * place) % 60 for place in range(5 + 41 * row)] for row in range(4)]


def sqnr_db(found: Tensor, expected: Tensor) -> float:
    error = (found.double() - expected.double()).square().sum().clamp(min=1e-30)
    return float(10 * torch.log10(expected.double().square().sum() / error))


def codes(*shape: int) -> Tensor:
    return torch.randint(-128, 128, shape, dtype=torch.int8, device=DEVICE)


def make_step(E: int, P: int, G: int, N: int, K: int, *, norm_first: bool, rotate: bool, rows: int) -> SSDStep:
    H, C = E // P, E + 2 * G * N
    heads = torch.randperm(H, device=DEVICE)
    if G > 1 or not rotate:
        heads = torch.arange(H, device=DEVICE)
    places = torch.stack([torch.randperm(P, device=DEVICE) for _ in range(H)])
    return SSDStep(
        sizes=(E, H, P, G, N, K),
        projected_scale=torch.rand(2 * E + 2 * G * N + H, device=DEVICE) * 0.02 + 0.01,
        conv_weight=codes(K, C),
        conv_factor=torch.rand(C, device=DEVICE) * 1e-4,
        conv_bias=torch.randn(C, device=DEVICE) * 0.1,
        conv_scale=torch.rand(C, device=DEVICE) * 0.02 + 0.01,
        dt_bias=torch.randn(H, device=DEVICE) - 3,
        A=-torch.rand(H, device=DEVICE) * 8 - 0.5,
        D=torch.randn(E, device=DEVICE),
        dt_limit=(0.0, float("inf")),
        state_table=torch.rand(rows, N, device=DEVICE) * 0.01 + 0.01,
        state_rows=torch.randint(0, rows, (E,), device=DEVICE).to(torch.int16),
        norm_weight=torch.randn(E, device=DEVICE),
        norm_first=norm_first,
        right=hadamard_matrix(P).to(torch.int8).to(DEVICE) if rotate else None,
        old_head=heads.int(),
        old_place=places.flatten().to(torch.int16),
    )


@pytest.mark.parametrize("kind", [CODES, FLOAT, ADD])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize(
    "shape",
    [(50, 192), (33, 64), *(pytest.param(s, marks=REAL) for s in ((10576, 2560), (2560, 5120), (3352, 768)))],
)
def test_a_row_times_a_weight(shape: tuple[int, int], normed: bool, kind: int) -> None:
    """Sums are exact: equal bit for bit, but for codes that the norm's rounding moves."""
    torch.manual_seed(0)
    N, K = shape
    w, scale, bias = codes(N, K), torch.rand(N, device=DEVICE) * 1e-4, torch.randn(N, device=DEVICE)
    x = torch.randn(2, K, device=DEVICE) if normed else codes(2, K)
    norm = (1 + torch.randn(K, device=DEVICE) / 8, torch.tensor(0.02, device=DEVICE), 1e-5) if normed else None
    found = torch.full((2, N), 3, dtype=torch.int8 if kind == CODES else torch.float32, device=DEVICE)
    expected = found.cpu()
    gemv(x, w, scale, bias, found, kind=kind, norm=norm, **HOW.gemv(N, K))
    there = None if norm is None else (norm[0].cpu(), norm[1].cpu(), norm[2])
    gemv_reference(x.cpu(), w.cpu(), scale.cpu(), bias.cpu(), expected, kind=kind, norm=there)
    if normed:
        assert sqnr_db(found.cpu(), expected) > 50
    else:
        assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize(
    "sizes",
    [(64, 16, 1, 16, 4), (64, 16, 2, 8, 3), *(pytest.param(s, marks=REAL) for s in ((5120, 64, 1, 128, 4),))],
)
def test_a_step_between_the_projections(sizes: tuple[int, int, int, int, int], rotate: bool, norm_first: bool) -> None:
    """Codes of the convolution and the state as by the definition, but for those that rounding moves by one."""
    torch.manual_seed(1)
    step = make_step(*sizes, norm_first=norm_first, rotate=rotate, rows=3)
    E, H, P, G, N, K = step.sizes
    ring, state = codes(2, K, E + 2 * G * N), codes(2, H, P, N)
    results = []
    for run, options in ((ssd_step, {"pdl": HOW.pdl}), (ssd_step_reference, {})):
        torch.manual_seed(2)
        kept = (ring.clone(), state.clone())
        out, squares = torch.full((2, E), 7.0, device=DEVICE), torch.full((2, H), 7.0, device=DEVICE)
        for time in range(K - 1, K + 2):
            position = torch.tensor([time], dtype=torch.int32, device=DEVICE)
            run(step, codes(2, 2 * E + 2 * G * N + H), kept[0], position, kept[1], out, squares, **options)
        results.append((*kept, out, squares))
    (ring, state, out, squares), expected = results
    assert torch.equal(ring, expected[0])
    assert (state.int() - expected[1].int()).abs().max() <= 1
    assert (state != expected[1]).float().mean() < 1e-3
    assert sqnr_db(out, expected[2]) > 60
    assert sqnr_db(squares, expected[3]) > 60


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("groups", [None, 1, 2])
@pytest.mark.parametrize("sizes", [(12, 16), pytest.param((80, 64), marks=REAL), pytest.param((128, 64), marks=REAL)])
def test_norm_and_rotation_across_heads(sizes: tuple[int, int], groups: int | None, rotate: bool) -> None:
    """As by the definition, but for codes that rounding moves by one."""
    torch.manual_seed(3)
    R, P = sizes
    x, squares = torch.randn(2, R * P, device=DEVICE), torch.rand(2, R, device=DEVICE) * P
    left = hadamard_matrix(R).half().to(DEVICE) if rotate else None
    scale = torch.tensor(0.3 if rotate else 0.03, device=DEVICE)
    found, expected = (torch.full((2, R * P), 3, dtype=torch.int8, device=DEVICE) for _ in range(2))
    given = None if groups is None else squares
    join(x, given, left, scale, found, rows=R, groups=groups or 1, eps=1e-5, pdl=HOW.pdl)
    join_reference(x, given, left, scale, expected, rows=R, groups=groups or 1, eps=1e-5)
    assert (found.int() - expected.int()).abs().max() <= 1
    assert (found != expected).float().mean() < 1e-3


def quantized(recipe: Recipe, **changes: Any) -> MambaLM:
    config = small_config("mamba2", vocab_size=60, **changes)
    model = model_of(config)
    list(quantize(model, recipe, batch_documents(DOCUMENTS, batch_size=4)))
    return model.to(DEVICE)


LONG = pytest.mark.long
MODELS = {
    "whole": (Recipe(quantize_embedding=True, quantize_lm_head=True), {"ssm_headdim": 16}),
    "grouped": (Recipe(group_heads=True), {"d_model": 48, "ssm_ngroups": 2, "ssm_headdim": 8, "n_layer": 1}),
    "plain": (
        Recipe(rotate=False, quantize_lm_head=True),
        {"ssm_rmsnorm": False, "ssm_D_has_hdim": True, "ssm_dt_limit": [0.1, 0.5], "n_layer": 1},
    ),
    "norm first": (Recipe(w_bits=4), {"ssm_norm_before_gate": True, "n_layer": 1}),
}


@pytest.mark.parametrize(
    ("recipe", "changes"),
    # In the interpreter each takes many seconds: one that has most of it is always run.
    [
        pytest.param(*case, id=name, marks=() if name == "grouped" else pytest.mark.long)
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
        assert (found.conv != expected.conv).float().mean() < 0.01
        assert (found.state.codes.int() - expected.state.codes.int()).abs().max() <= 1


def test_models_without_kernels_say_so() -> None:
    """Float models, float activations and Mamba-1 are not run by kernels that are not made for them."""
    for model in (
        model_of(small_config("mamba2")),
        quantized(Recipe(w_bits=4, a_bits=16)),
        quantized(Recipe(), d_model=40, ssm_headdim=20),
    ):
        with pytest.raises(NotFusedError):
            DecodeRunner(Plan.of(model), 1, HOW, graph=False)


def test_kernels_are_asked_for_and_need_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable, or elsewhere than on a CUDA device, a model decodes by itself."""
    model = quantized(Recipe(), ssm_headdim=16).cpu()
    monkeypatch.delenv(VARIABLE, raising=False)
    assert decoder_of(model) is model
    monkeypatch.setenv(VARIABLE, "1")
    assert decoder_of(model) is model
    if GPU:
        assert isinstance(decoder_of(model.to(DEVICE)), GraphedDecoder)
