"""Rotation: another basis, the same model."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quamba.errors import RecipeError
from quamba.models.build import build_model
from quamba.models.config import parse_config
from quamba.models.loading import load_model
from quamba.nn.mamba1 import Mamba1Mixer
from quamba.nn.mamba2 import Mamba2Mixer
from quamba.nn.model import MambaLM
from quamba.transforms.hadamard import Hadamard
from quamba.transforms.rotation import rotate_model, rotate_output, rotate_residual
from tests.quamba.checkpoints import MODELS, random_state_dict, small_config

# Widths 32 and 64 are powers of two; 48, 96 (base 12) and 40, 80 (base 20) have matrices that are not symmetric; 42, 84
# and 54 fall back to blocks, 27 to the identity.
CONFIGS = {
    "mamba1": small_config("mamba1"),
    "mamba1 of base 12": small_config("mamba1", d_model=48),
    "mamba1 in blocks": small_config("mamba1", d_model=42),
    "mamba1 of odd width": small_config("mamba1", d_model=27),
    "mamba1 untied": small_config("mamba1", tie_embeddings=False),
    "mamba1 with biases": small_config("mamba1", d_model=40, ssm_bias=True),
    "mamba1 without convolution's bias": small_config("mamba1", ssm_conv_bias=False),
    "mamba2": small_config("mamba2"),
    "mamba2 of base 12": small_config("mamba2", d_model=48),
    "mamba2 in blocks": small_config("mamba2", d_model=42, ssm_headdim=12),
    "mamba2 untied": small_config("mamba2", tie_embeddings=False),
    "mamba2 with biases": small_config("mamba2", d_model=48, ssm_bias=True),
    "mamba2 without convolution's bias": small_config("mamba2", ssm_conv_bias=False),
    "mamba2 in groups": small_config("mamba2", d_model=48, ssm_ngroups=4),
    "mamba2 without gated norm": small_config("mamba2", d_model=40, ssm_rmsnorm=False),
    "mamba2 with norm before gate": small_config("mamba2", ssm_norm_before_gate=True),
    "mamba2 with D per channel": small_config("mamba2", ssm_D_has_hdim=True),
}
FAMILIES = ["mamba1", "mamba2"]
TEXT = "It was a truth that nobody in the village dared deny. " * 12


def model_of(config: dict[str, Any]) -> MambaLM:
    state, ssm = random_state_dict(config), config["ssm_cfg"]
    generator = torch.Generator().manual_seed(7)
    for i in range(config["n_layer"]):
        mixer = f"backbone.layers.{i}.mixer"
        if ssm.get("bias"):
            for name in ("in_proj", "out_proj"):
                rows = len(state[f"{mixer}.{name}.weight"])
                state[f"{mixer}.{name}.bias"] = torch.randn(rows, generator=generator) * 0.2
        if not ssm.get("conv_bias", True):
            del state[f"{mixer}.conv1d.bias"]
    return build_model(parse_config(config, Path("config.json")), state, "test")


def random_ids(rows: int = 2, length: int = 75) -> Tensor:
    return torch.randint(0, 4000, (rows, length), generator=torch.Generator().manual_seed(1))


def mixers(model: MambaLM) -> list[Mamba1Mixer | Mamba2Mixer]:
    found = [layer.mixer for layer in model.layers]
    assert all(isinstance(mixer, Mamba1Mixer | Mamba2Mixer) for mixer in found)
    return found


def buffers(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers(remove_duplicate=False)}


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_unchanged(name: str) -> None:
    """Whatever the structure and the size, the rotated model says what the model said."""
    model, ids = model_of(CONFIGS[name]), random_ids()
    before = model(ids)
    rotate_model(model)
    error = (model(ids) - before).abs().max()
    assert 0 < error < 1e-4


@pytest.mark.parametrize("name", ["mamba-2m", "mamba2-4m"])
def test_logits_of_the_shipped_models_are_unchanged(name: str) -> None:
    """On text the logits of the trained checkpoints stay within float32's rounding."""
    loaded = load_model(str(MODELS / name))
    ids = torch.tensor([loaded.tokenizer.encode(TEXT)])
    before = loaded.model(ids)
    rotate_model(loaded.model)
    error = (loaded.model(ids) - before).abs().max()
    assert 0 < error < 1e-4


# Beyond these a layer alone takes seconds.
RELEASED = [768, 1024, *(pytest.param(size, marks=pytest.mark.long) for size in (1536, 2048, 2560, 4096))]


@pytest.mark.parametrize("d_model", RELEASED)
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_unchanged_at_every_released_width(family: str, d_model: int) -> None:
    """One layer of each width that was published, with weights of the usual size."""
    sizes = {"ssm_d_state": 16} if family == "mamba1" else {"ssm_d_state": 32, "ssm_headdim": 64}
    config = small_config(family, d_model=d_model, n_layer=1, vocab_size=64, **sizes)
    state = random_state_dict(config)
    for name, weight in state.items():
        if name.endswith("_proj.weight"):
            weight.mul_(5 / weight.shape[1] ** 0.5)
    model, ids = build_model(parse_config(config, Path("config.json")), state, "test"), random_ids(1, 40) % 64
    before = model(ids)
    rotate_model(model)
    error = (model(ids) - before).abs().max()
    assert 0 < error < 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_is_what_the_formulas_say(family: str) -> None:
    """With explicit matrices: E H, (W w_f) H, (W_in w) H, H^T W_out H_E, b H; norms 1; and nothing else has changed."""
    model = model_of(small_config(family, d_model=48, ssm_bias=True))
    before = buffers(model)
    rotate_model(model)
    after = buffers(model)
    H, H_E = (Hadamard(size, torch.float64)(torch.eye(size, dtype=torch.float64)) for size in (48, 96))
    expected = {
        "embedding.weight": before["embedding.weight"].double() @ H,
        "lm_head.weight": (before["lm_head.weight"].double() * before["norm_f.weight"]) @ H,
        "norm_f.weight": torch.ones(48).double(),
    }
    for i in range(2):
        mixer, norm = f"layers.{i}.mixer", f"layers.{i}.norm.weight"
        expected |= {
            norm: torch.ones(48).double(),
            f"{mixer}.in_proj.weight": (before[f"{mixer}.in_proj.weight"].double() * before[norm]) @ H,
            f"{mixer}.out_proj.weight": H.T @ before[f"{mixer}.out_proj.weight"].double() @ H_E,
            f"{mixer}.out_proj.bias": before[f"{mixer}.out_proj.bias"].double() @ H,
        }
    for name, tensor in before.items():
        assert after[name].dtype == torch.float32
        assert after[name].is_contiguous()
        if name in expected:
            assert not torch.equal(after[name], tensor)
            assert torch.allclose(after[name].double(), expected[name], atol=1e-6, rtol=1e-6)
        else:
            assert torch.equal(after[name], tensor)
    assert {name.rpartition(".")[0] for name in after.keys() - before.keys()} == {
        "residual_rotation",
        "layers.0.mixer.rotation",
        "layers.1.mixer.rotation",
    }


@pytest.mark.parametrize("name", ["mamba1", "mamba1 in blocks", "mamba2 in groups"])
def test_prefill_and_steps_equal_the_full_prefill(name: str) -> None:
    """Prompts of different lengths, then single tokens: the logits of one pass of the model before its rotation."""
    model, ids = model_of(CONFIGS[name]), random_ids(3, 60)
    full = model(ids)
    rotate_model(model)
    lengths, rows = torch.tensor([40, 2, 33]), torch.arange(3)
    cache = model.new_cache(3)
    assert torch.allclose(model.prefill(ids[:, :40], lengths, cache), full[rows, lengths - 1], atol=1e-4)
    for offset in range(15):
        logits = model.step(ids[rows, lengths + offset], cache)
        assert torch.allclose(logits, full[rows, lengths + offset], atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_are_those_of_the_model_in_another_basis(family: str) -> None:
    """`residual_rotation` says which: rotated back, and times w_f, the head reads what it read before."""
    model, ids = model_of(small_config(family, d_model=48)), random_ids()
    before, weight = model.hidden_states(ids), model.norm_f.weight.clone()
    rotate_residual(model)
    rotation = model.residual_rotation
    assert isinstance(rotation, Hadamard)
    after = model.hidden_states(ids)
    assert not torch.allclose(after, before, atol=1e-2)
    assert (rotation.inverse(after) * weight - before).abs().max() < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_the_two_sides_of_out_proj_can_be_rotated_apart(family: str) -> None:
    """Each half alone leaves the logits; channels permuted between the two, as reordering does, leave them too."""
    model, ids = model_of(small_config(family, d_model=48)), random_ids()
    before = model(ids)
    rotate_residual(model)
    assert (model(ids) - before).abs().max() < 1e-4
    permutation = torch.randperm(96, generator=torch.Generator().manual_seed(5))
    for mixer in mixers(model):
        assert isinstance(mixer.rotation, nn.Identity)
        mixer.out_proj.weight = mixer.out_proj.weight[:, permutation]
        rotate_output(mixer)
        mixer.rotation = nn.Sequential(Permuted(permutation), mixer.rotation)
    assert (model(ids) - before).abs().max() < 1e-4


class Permuted(nn.Module):
    """The channels as a reordered layer would make them."""

    def __init__(self, permutation: Tensor) -> None:
        super().__init__()
        self.permutation = permutation

    def forward(self, x: Tensor) -> Tensor:
        return x[..., self.permutation]


@pytest.mark.parametrize("tied", [True, False])
def test_the_head_is_untied(tied: bool) -> None:
    """Embedding and head are two tensors afterwards, whose memory no caller's tensor shares, and the config says so."""
    config = small_config("mamba1", tie_embeddings=tied)
    state = random_state_dict(config)
    original = {name: tensor.clone() for name, tensor in state.items()}
    model = build_model(parse_config(config, Path("config.json")), state, "test")
    assert (model.embedding.weight is model.lm_head.weight) == tied
    rotate_model(model)
    assert model.embedding.weight.data_ptr() != model.lm_head.weight.data_ptr()
    assert model.embedding.weight.shape == model.lm_head.weight.shape
    assert model.config.tie_embeddings is False
    assert all(torch.equal(tensor, original[name]) for name, tensor in state.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_only_what_out_proj_reads_is_rotated_at_run_time(family: str) -> None:
    """The gate and gated norm give what they gave; out_proj reads that times H_E."""
    model = model_of(small_config(family, d_model=48))
    natural, read = mixer_inputs(model)
    assert torch.equal(natural, read)
    rotate_model(model)
    after, rotated = mixer_inputs(model)
    assert torch.allclose(after, natural, atol=1e-4)
    assert torch.allclose(rotated, Hadamard(96)(natural), atol=1e-4)


def mixer_inputs(model: MambaLM) -> tuple[Tensor, Tensor]:
    """What the first mixer's rotation and its out_proj read."""
    inputs: list[Tensor] = []
    mixer = mixers(model)[0]
    hooks = [
        part.register_forward_pre_hook(lambda _, x: inputs.append(x[0])) for part in (mixer.rotation, mixer.out_proj)
    ]
    model(random_ids(1, 20))
    for hook in hooks:
        hook.remove()
    natural, read = inputs
    return natural, read


def rotated_by(*steps: str) -> MambaLM:
    model = model_of(small_config("mamba2"))
    for step in steps:
        if step == "model":
            rotate_model(model)
        elif step == "residual":
            rotate_residual(model)
        else:
            rotate_output(mixers(model)[1])
    return model


@pytest.mark.parametrize(
    ("done", "step"),
    [
        (("model",), "model"),
        (("model",), "residual"),
        (("model",), "output"),
        (("residual",), "residual"),
        (("residual",), "model"),
        (("output",), "output"),
        (("output",), "model"),
    ],
)
def test_rotating_twice_is_refused(done: tuple[str, ...], step: str) -> None:
    """A second rotation of either kind is an error of one line, and the model stays as it was."""
    model = rotated_by(*done)
    before, config = buffers(model), model.config
    attempts = {
        "model": lambda: rotate_model(model),
        "residual": lambda: rotate_residual(model),
        "output": lambda: rotate_output(mixers(model)[1]),
    }
    with pytest.raises(RecipeError, match="rotated already; load the model anew") as caught:
        attempts[step]()
    assert "\n" not in str(caught.value)
    assert unchanged(model, before)
    assert model.config is config


def unchanged(model: MambaLM, before: dict[str, Tensor]) -> bool:
    after = buffers(model)
    return after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


class Other(nn.Module):
    """A part that is not the float model's."""


@pytest.mark.parametrize("part", ["layers.1", "layers.1.mixer", "layers.1.norm", "norm_f"])
@pytest.mark.parametrize("family", FAMILIES)
def test_parts_of_another_kind_are_refused(family: str, part: str) -> None:
    """A layer, mixer or norm that is not known is named, in the last place too, before anything is changed."""
    model = model_of(small_config(family))
    model.set_submodule(part, Other())
    before = buffers(model)
    for rotate in (rotate_model, rotate_residual):
        with pytest.raises(TypeError, match="Other"):
            rotate(model)
        assert unchanged(model, before)


@pytest.mark.parametrize("part", ["in_proj", "out_proj"])
@pytest.mark.parametrize("family", FAMILIES)
def test_quantized_models_are_refused(family: str, part: str) -> None:
    """A projection that is not float any more cannot be rotated: the error says to do it first."""
    model = model_of(small_config(family))
    model.set_submodule(f"layers.1.mixer.{part}", Other())
    before = buffers(model)
    for attempt in (lambda: rotate_model(model), lambda: rotate_output(mixers(model)[1])):
        with pytest.raises(TypeError, match="Other is no float layer: the model is quantized already"):
            attempt()
        assert unchanged(model, before)


def test_large_tables_are_rotated_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few rows are taken at a time, the result is the same to the bit."""
    model = model_of(small_config("mamba1", d_model=48))
    other = copy.deepcopy(model)
    rotate_model(model)
    monkeypatch.setattr("quamba.transforms.rotation._ELEMENTS_AT_ONCE", 1000)
    rotate_model(other)
    assert unchanged(other, buffers(model))


@pytest.mark.gpu
@pytest.mark.parametrize("family", FAMILIES)
def test_on_cuda_logits_are_unchanged_too(family: str) -> None:
    """Rotated there, or rotated here and moved there."""
    model, ids = model_of(small_config(family, d_model=48)), random_ids()
    here = copy.deepcopy(model)
    before = model.to("cuda")(ids.cuda())
    rotate_model(model)
    rotate_model(here)
    for rotated in (model, here.to("cuda")):
        assert (rotated(ids.cuda()) - before).abs().max() < 1e-3
