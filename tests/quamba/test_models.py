"""Loading and the forward pass: the same numbers as transformers, whatever the way there."""

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from quamba.errors import DeviceError, ModelError
from quamba.models.config import parse_config
from quamba.models.loading import check_model, load_model, resolve_device
from tests.quamba.checkpoints import MODELS, random_state_dict, small_config, write_checkpoint

CONFIGS = {
    "mamba1": small_config("mamba1"),
    "mamba1 odd sizes": small_config("mamba1", d_model=40, ssm_d_state=5, ssm_d_conv=3, vocab_size=4093),
    "mamba2": small_config("mamba2"),
    "mamba2 in groups": small_config("mamba2", ssm_ngroups=4),
    "mamba2 with few heads": small_config("mamba2", d_model=24, ssm_headdim=16, ssm_d_state=24, ssm_ngroups=3),
    "mamba2 untied": small_config("mamba2", tie_embeddings=False),
}
FAMILIES = ["mamba1", "mamba2"]


def to_transformers(config: dict[str, Any], state: dict[str, torch.Tensor]) -> Any:
    """The same model in transformers."""
    from transformers import Mamba2Config, Mamba2ForCausalLM, MambaConfig, MambaForCausalLM

    ssm, d_model = config["ssm_cfg"], config["d_model"]
    tied = config.get("tie_embeddings", True)
    renamed = {name.replace("embedding.", "embeddings."): tensor.float() for name, tensor in state.items()}
    renamed.setdefault("lm_head.weight", renamed["backbone.embeddings.weight"])
    common = {
        "vocab_size": len(renamed["lm_head.weight"]),
        "hidden_size": d_model,
        "num_hidden_layers": config["n_layer"],
        "conv_kernel": ssm.get("d_conv", 4),
        "tie_word_embeddings": tied,
    }
    if ssm["layer"] == "Mamba1":
        model: Any = MambaForCausalLM(MambaConfig(**common, state_size=ssm.get("d_state", 16)))
    else:
        model = Mamba2ForCausalLM(
            Mamba2Config(
                **common,
                state_size=ssm.get("d_state", 128),
                head_dim=ssm["headdim"],
                num_heads=2 * d_model // ssm["headdim"],
                n_groups=ssm["ngroups"],
                chunk_size=ssm.get("chunk_size", 256),
            )
        )
    model.load_state_dict(renamed)
    return model.eval()


@torch.no_grad()
def hf_logits(model: Any, input_ids: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids, use_cache=False).logits
    return logits


@pytest.mark.filterwarnings("ignore")  # transformers warns of its slow path, and of things to come in torch
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_equal_transformers(name: str, tmp_path: Path) -> None:
    """On the same weights both implementations give the same logits, for every structure that they share."""
    config = CONFIGS[name]
    state = random_state_dict(config)
    model = load_model(str(write_checkpoint(tmp_path / "model", config, state))).model
    input_ids = torch.randint(0, 4000, (2, 75), generator=torch.Generator().manual_seed(1))
    expected = hf_logits(to_transformers(config, state), input_ids)
    assert (model(input_ids) - expected).abs().max() < 1e-4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["mamba-2m", "mamba2-4m"])
def test_trained_models_logits_equal_transformers(name: str) -> None:
    """The shipped checkpoints give transformers' logits on text, to 1e-4."""
    loaded = load_model(str(MODELS / name))
    config = json.loads((MODELS / name / "config.json").read_text())
    reference = to_transformers(config, load_file(MODELS / name / "model.safetensors"))
    input_ids = torch.tensor([loaded.tokenizer.encode("It was a truth that nobody in the village dared deny. " * 12)])
    assert (loaded.model(input_ids) - hf_logits(reference, input_ids)).abs().max() < 1e-4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CONFIGS)
def test_both_layouts_load_the_same_model(name: str, tmp_path: Path) -> None:
    """A model saved by transformers, also as a pickled state dict, loads like the one in mamba-ssm's layout."""
    config = CONFIGS[name]
    state = random_state_dict(config)
    ours = load_model(str(write_checkpoint(tmp_path / "ssm", config, state, pickled=True)))
    saved = tmp_path / "hf"
    to_transformers(config, state).save_pretrained(saved)
    (saved / "tokenizer.json").write_bytes((tmp_path / "ssm" / "tokenizer.json").read_bytes())
    theirs = load_model(str(saved))
    input_ids = torch.arange(60).view(2, 30)
    assert theirs.config.layout == "huggingface"
    assert torch.equal(ours.model(input_ids), theirs.model(input_ids))


@pytest.mark.parametrize("family", FAMILIES)
def test_prefill_and_steps_equal_the_full_prefill(family: str, tmp_path: Path) -> None:
    """Prompts of different lengths read side by side, then single tokens: the logits of one pass over everything."""
    model = load_model(str(write_checkpoint(tmp_path, small_config(family)))).model
    input_ids = torch.randint(0, 4000, (3, 60), generator=torch.Generator().manual_seed(2))
    full = model(input_ids)
    lengths = torch.tensor([40, 2, 33])
    cache = model.new_cache(3)
    rows = torch.arange(3)
    assert torch.allclose(model.prefill(input_ids[:, :40], lengths, cache), full[rows, lengths - 1], atol=1e-4)
    for offset in range(15):
        logits = model.step(input_ids[rows, lengths + offset], cache)
        assert torch.allclose(logits, full[rows, lengths + offset], atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_in_two_parts_is_the_prompt(family: str, tmp_path: Path) -> None:
    """A cache that holds the first part goes on with the second, and a selection of rows goes on alone."""
    model = load_model(str(write_checkpoint(tmp_path, small_config(family)))).model
    input_ids = torch.randint(0, 4000, (2, 70), generator=torch.Generator().manual_seed(3))
    cache = model.new_cache(2)
    model.prefill(input_ids[:, :41], None, cache)
    alone = cache.select(torch.tensor([1]))
    expected = model(input_ids)[:, -1]
    assert torch.allclose(model.prefill(input_ids[:, 41:], None, cache), expected, atol=1e-4)
    assert torch.allclose(model.prefill(input_ids[1:, 41:], None, alone), expected[1:], atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_and_batching_change_nothing(family: str, tmp_path: Path) -> None:
    """A row's hidden states do not depend on its neighbours, nor on what it is padded with."""
    model = load_model(str(write_checkpoint(tmp_path, small_config(family)))).model
    input_ids = torch.randint(0, 4000, (64, 90), generator=torch.Generator().manual_seed(4))
    lengths = torch.randint(1, 91, (64,), generator=torch.Generator().manual_seed(5))
    batch = model.hidden_states(input_ids, lengths)
    for row in (0, 17, 63):
        alone = model.hidden_states(input_ids[row : row + 1, : lengths[row]])
        assert torch.allclose(batch[row, : lengths[row]], alone[0], atol=1e-4)


def test_variants_of_mamba2_change_the_result_as_they_should(tmp_path: Path) -> None:
    """D per channel, no gated norm, norm before gate and limits of dt are read, not ignored."""
    base = small_config("mamba2")
    state = random_state_dict(base)
    input_ids = torch.arange(40)[None]

    def logits(name: str, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        return load_model(str(write_checkpoint(tmp_path / name, config, tensors))).model(input_ids)

    plain = logits("plain", base, state)
    per_channel = {
        name: tensor.repeat_interleave(8) if name.endswith("mixer.D") else tensor for name, tensor in state.items()
    }
    wide = logits("D", small_config("mamba2", ssm_D_has_hdim=True), per_channel)
    assert torch.allclose(wide, plain, atol=1e-5)
    without = {name: tensor for name, tensor in state.items() if not name.endswith("mixer.norm.weight")}
    for name, changes, tensors in (
        ("gate", {"ssm_norm_before_gate": True}, state),
        ("limit", {"ssm_dt_limit": [0.0, 0.05]}, state),
        ("nonorm", {"ssm_rmsnorm": False}, without),
    ):
        other = logits(name, small_config("mamba2", **changes), tensors)
        assert torch.isfinite(other).all()
        assert not torch.allclose(other, plain, atol=1e-2)


def test_sharded_weights_load(tmp_path: Path) -> None:
    """Weights over several files with an index are one model."""
    config = small_config("mamba1")
    state = random_state_dict(config)
    whole = load_model(str(write_checkpoint(tmp_path / "whole", config, state)))
    sharded = write_checkpoint(tmp_path / "sharded", config, state)
    (sharded / "model.safetensors").unlink()
    names = sorted(state)
    files = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    from safetensors.torch import save_file

    for file, part in files.items():
        save_file({name: state[name] for name in part}, sharded / file)
    index = {"weight_map": {name: file for file, part in files.items() for name in part}}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    input_ids = torch.arange(20)[None]
    assert torch.equal(load_model(str(sharded)).model(input_ids), whole.model(input_ids))
    (sharded / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match="index names it"):
        load_model(str(sharded))


def test_half_precision_files_are_computed_in_float32(tmp_path: Path) -> None:
    """Weights stored in half precision are widened on loading, small parameters keep the precision they have."""
    config = small_config("mamba2")
    state = {
        name: tensor if name.endswith(("A_log", "D", "dt_bias")) else tensor.half()
        for name, tensor in random_state_dict(config).items()
    }
    model = load_model(str(write_checkpoint(tmp_path, config, state))).model
    assert {buffer.dtype for buffer in model.buffers()} == {torch.float32}
    assert torch.equal(model.layers[0].mixer.A_log(), state["backbone.layers.0.mixer.A_log"])


def damaged(directory: Path, how: str) -> None:
    weights = directory / "model.safetensors"
    content = weights.read_bytes()
    if how == "cut":
        weights.write_bytes(content[:-100])
    elif how == "header":
        weights.write_bytes(content[:5])
    elif how == "longer":
        weights.write_bytes(content + b"\0")
    elif how == "garbage":
        weights.write_bytes(struct.pack("<Q", 40) + b"\xff" * 40 + content[48:])
    elif how == "empty":
        weights.write_bytes(b"")
    elif how == "none":
        weights.unlink()
    elif how == "no config":
        (directory / "config.json").unlink()
    elif how == "no json":
        (directory / "config.json").write_text("{")
    elif how == "list":
        (directory / "config.json").write_text("[]")
    elif how == "family":
        (directory / "config.json").write_text('{"model_type": "llama"}')
    elif how == "ssm family":
        (directory / "config.json").write_text(json.dumps(small_config("mamba1", ssm_layer="Mamba3")))
    elif how == "sizes":
        (directory / "config.json").write_text(json.dumps(small_config("mamba1", d_model="32")))
    elif how == "attention":
        (directory / "config.json").write_text(json.dumps(small_config("mamba1", attn_layer_idx=[1])))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cut", "truncated"),
        ("header", "truncated"),
        ("longer", "truncated"),
        ("garbage", "truncated"),
        ("empty", "truncated"),
        ("none", "no weights"),
        ("no config", "no config.json"),
        ("no json", "no valid JSON"),
        ("list", "JSON object"),
        ("family", "unknown family"),
        ("ssm family", "unknown family"),
        ("sizes", "d_model"),
        ("attention", "attention"),
    ],
)
def test_damaged_models_are_refused_before_any_work(how: str, message: str, tmp_path: Path) -> None:
    """The quick check and the loading both name what is wrong, in one line that begins with the file."""
    directory = write_checkpoint(tmp_path / "model", small_config("mamba1"))
    check_model(str(directory))
    damaged(directory, how)
    for attempt in (check_model, load_model):
        with pytest.raises(ModelError, match=message) as caught:
            attempt(str(directory))
        assert str(caught.value).startswith(str(directory))
        assert "\n" not in str(caught.value)


def test_a_pickle_with_code_is_refused(tmp_path: Path) -> None:
    """Nothing in a checkpoint is executed: a pickle that holds more than tensors does not load."""
    directory = write_checkpoint(tmp_path / "model", small_config("mamba1"), pickled=True)
    torch.save({"backbone.embedding.weight": Path("x")}, directory / "pytorch_model.bin")
    with pytest.raises(ModelError, match="refused"):
        load_model(str(directory))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "lack backbone.layers.1.norm.weight"),
        ("unknown", "unknown tensors: backbone.extra"),
        ("shape", r"is \[32, 63\] where config.json says \[32, 64\]"),
        ("integers", "not floating point"),
    ],
)
def test_weights_that_do_not_fit_are_named(change: str, message: str, tmp_path: Path) -> None:
    """Missing, unknown, misshapen and integer tensors are each named."""
    config = small_config("mamba1")
    state = random_state_dict(config)
    if change == "missing":
        del state["backbone.layers.1.norm.weight"]
    elif change == "unknown":
        state["backbone.extra"] = torch.zeros(1)
    elif change == "shape":
        name = "backbone.layers.0.mixer.out_proj.weight"
        state[name] = state[name][:, :-1].contiguous()
    else:
        state["backbone.norm_f.weight"] = torch.ones(32, dtype=torch.int8)
    with pytest.raises(ModelError, match=message):
        load_model(str(write_checkpoint(tmp_path, config, state)))


def test_missing_models_say_what_to_give(tmp_path: Path) -> None:
    """Neither a path that is not there nor a file is taken for a model."""
    with pytest.raises(ModelError, match="no such directory; give"):
        load_model(str(tmp_path / "nowhere"))
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(ModelError, match="not a directory"):
        load_model(str(file))


def test_devices_are_checked() -> None:
    """Only what is there can be asked for."""
    assert resolve_device("cpu") == torch.device("cpu")
    for wrong in ("gpu", "cuda:x", "cuda:", "cuda:99", ""):
        with pytest.raises(DeviceError):
            resolve_device(wrong)


def test_huggingface_defaults_are_filled_in() -> None:
    """A config.json that leaves out what equals transformers' defaults means those."""
    config = parse_config({"model_type": "mamba2", "hidden_size": 64, "head_dim": 16, "num_heads": 8}, Path("c"))
    assert (config.ngroups, config.d_state, config.d_inner, config.nheads) == (8, 128, 128, 8)
    assert config.dt_limit == (0.0, math.inf)
    assert parse_config({"model_type": "mamba", "hidden_size": 100}, Path("c")).dt_rank == 7
