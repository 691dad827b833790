"""On a CUDA device whole models say what they say on the CPU, float and quantized, and everything around them runs."""

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from quamba.evals import batching
from quamba.evals.scoring import TokenRequest, score_requests
from quamba.flow.calibrate import Calibration, batch_documents
from quamba.flow.quantize import quantize
from quamba.flow.recipe import Recipe
from quamba.generation import generate
from quamba.generation_options import GenerationOptions, Sampling
from quamba.models.tokenizer import Tokenizer, load_tokenizer
from quamba.nn.model import MambaLM
from tests.quamba.checkpoints import MODELS, small_config
from tests.quamba.test_rotation import model_of

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]
DEVICE = "cuda"
CONFIGS = {
    "mamba1": small_config("mamba1"),
    "mamba1 of odd width": small_config("mamba1", d_model=27),
    "mamba2": small_config("mamba2"),
    "mamba2 in groups": small_config("mamba2", ssm_ngroups=2),
    "mamba2 without gated norm": small_config("mamba2", ssm_rmsnorm=False),
    "mamba2 with norm before gate": small_config("mamba2", ssm_norm_before_gate=True),
    "mamba2 with D per channel": small_config("mamba2", ssm_D_has_hdim=True),
    "mamba2 with limits": small_config("mamba2", ssm_dt_limit=[0.1, 0.5]),
}
FAMILIES = ["mamba1", "mamba2"]
DOCUMENTS = [[(7 * row + 3 * place) % 4000 for place in range(5 + 41 * row)] for row in range(8)]
PROMPTS = [[5, 9, 11], [7], list(range(40, 75)), list(range(300, 500))]
LENGTHS = torch.tensor([len(prompt) for prompt in PROMPTS])


def padded() -> Tensor:
    """The prompts, right-padded with ids that are not zero."""
    ids = torch.full((len(PROMPTS), int(LENGTHS.max())), 77)
    for row, prompt in enumerate(PROMPTS):
        ids[row, : len(prompt)] = torch.tensor(prompt)
    return ids


def real_logits(model: MambaLM) -> Tensor:
    """Logits of all tokens that are no padding, on the CPU."""
    logits = model(padded().to(model.device), LENGTHS.to(model.device)).cpu()
    return logits[torch.arange(logits.shape[1]) < LENGTHS[:, None]]


def decoded_logits(model: MambaLM) -> Tensor:
    """Logits behind the prompts, and of 5 more tokens by single steps, on the CPU."""
    cache = model.new_cache(len(PROMPTS))
    logits = [model.prefill(padded().to(model.device), LENGTHS.to(model.device), cache)]
    logits += [model.step(torch.full((len(PROMPTS),), token, device=model.device), cache) for token in range(9, 14)]
    return torch.stack(logits).cpu()


def sqnr_db(found: Tensor, expected: Tensor) -> float:
    return float(10 * torch.log10(expected.double().square().sum() / (found - expected).double().square().sum()))


def quantized(config: dict[str, Any], recipe: Recipe, device: str = "cpu") -> MambaLM:
    model = model_of(config).to(device)
    list(quantize(model, recipe, batch_documents(DOCUMENTS, batch_size=3)))
    return model


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_logits_of_float_models(config: dict[str, Any]) -> None:
    """Of ragged prompts read at once, and of single tokens behind them."""
    here = model_of(config)
    there = copy.deepcopy(here).to(DEVICE)
    assert (real_logits(there) - real_logits(here)).abs().max() < 1e-3
    assert (decoded_logits(there) - decoded_logits(here)).abs().max() < 1e-3


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bits", [(8, 8), (4, 8), (4, 16)], ids=["W8A8", "W4A8", "W4A16"])
def test_logits_of_quantized_models(family: str, bits: tuple[int, int]) -> None:
    """Where activations are codes, one that lies between two may fall to either side; else as float models."""
    here = quantized(small_config(family), Recipe(w_bits=bits[0], a_bits=bits[1], quantize_embedding=True))
    there = copy.deepcopy(here).to(DEVICE)
    for logits in (real_logits, decoded_logits):
        found, expected = logits(there), logits(here)
        assert sqnr_db(found, expected) > 40
        assert bits[1] == 8 or (found - expected).abs().max() < 1e-3


RECIPES = {
    "W8A8": Recipe(),
    "auto": Recipe(percentile_alpha="auto", observer="exact"),
    "W4A8 by GPTQ": Recipe(w_bits=4, apply_gptq=True, quantize_embedding=True, quantize_lm_head=True),
    "W4A16 by GPTQ in order": Recipe(w_bits=4, a_bits=16, apply_gptq=True, act_order=True),
    "grouped": Recipe(group_heads=True, quantize_lm_head=True),
    "grouped percentiles": Recipe(group_heads=True, percentile_alpha=0.99, observer="exact"),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_quantizing_on_the_device(family: str, recipe: Recipe) -> None:
    """Sweep, grouping, GPTQ and conversion there give the model that they give here, but for what rounding decides."""
    if recipe.group_heads and family == "mamba1":
        pytest.skip("Mamba-1 has no heads to group")
    config = small_config(family, ssm_headdim=8, ssm_ngroups=2) if family == "mamba2" else small_config(family)
    there = quantized(config, recipe, DEVICE)
    assert all(buffer.device.type == DEVICE for buffer in there.buffers())
    assert sqnr_db(real_logits(there), real_logits(quantized(config, recipe))) > 20


@pytest.mark.parametrize("family", FAMILIES)
def test_the_sweep_sees_the_same(family: str) -> None:
    """Extremes of every watched tensor, the states after every stride among them."""
    here = model_of(small_config(family))
    seen = []
    for model in (here, copy.deepcopy(here).to(DEVICE)):
        calibration = Calibration(model, [Recipe(rotate=False)], batch_documents(DOCUMENTS, batch_size=3), [0])
        list(calibration.run())
        seen.append({key: observer.column_absmax().cpu() for key, observer in calibration.observers.items()})
    for key, values in seen[0].items():
        assert torch.allclose(seen[1][key], values, rtol=1e-3, atol=1e-4), key


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_texts(family: str, temperature: float) -> None:
    """Greedy and drawn, from ragged prompts, with rows that leave the batch: token for token as on the CPU."""
    here = model_of(small_config(family))
    sampling = Sampling(temperature=temperature, top_p=0.9, repetition_penalty=1.1)
    options = GenerationOptions(sampling=sampling, max_new_tokens=12, seed=3)
    first = [step[0].token for step in generate(here, PROMPTS, options)]
    texts = [
        [[(new.row, new.token, new.finish_reason) for new in step] for step in steps]
        for steps in (
            generate(model, PROMPTS, options, eos_token_id=first[4], vocab_size=4090)
            for model in (here, copy.deepcopy(here).to(DEVICE))
        )
    ]
    assert texts[0] == texts[1]


@dataclass
class Loaded:
    """A model with a tokenizer, as evaluations take it."""

    model: MambaLM
    tokenizer: Tokenizer

    @property
    def device(self) -> torch.device:
        return self.model.device


@pytest.mark.parametrize("batch_size", [3, None])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores(family: str, batch_size: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Log likelihoods of continuations, in batches of ragged rows, as many as the user or the device wants."""
    monkeypatch.setattr(batching, "TOKENS_ON_CUDA", 48)
    monkeypatch.setattr(batching, "_FIRST_TOKENS", 16)
    here, tokenizer = model_of(small_config(family)), load_tokenizer(MODELS / "mamba-2m")
    requests = [TokenRequest(tuple(prompt), tuple(prompt[: 1 + len(prompt) // 2])) for prompt in PROMPTS]
    results = [
        score_requests(Loaded(model, tokenizer), requests, batch_size=batch_size)
        for model in (here, copy.deepcopy(here).to(DEVICE))
    ]
    for (mine, greedy), (other, also_greedy) in zip(*results, strict=True):
        assert other == pytest.approx(mine, rel=1e-4, abs=1e-3)
        assert greedy == also_greedy
