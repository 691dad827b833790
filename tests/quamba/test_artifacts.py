"""Saved quantized models: bit-equal when loaded, one place for each recipe, whole or not there."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from quamba.errors import ModelError, SaveError
from quamba.flow.artifacts import Artifact
from quamba.flow.batches import TokenBatch, batch_documents
from quamba.flow.calibrate import Calibration
from quamba.flow.quantize import convert
from quamba.flow.recipe import Recipe
from quamba.models import saving
from quamba.models.config import Family
from quamba.models.loading import LoadedModel, check_model, load_model
from quamba.models.saving import size_bytes
from quamba.models.structure import Structure
from quamba.presets import PRESETS
from quamba.reports import LayerReport, ReorderReport
from quamba.transforms.rotation import rotate_model
from tests.quamba.checkpoints import small_config, write_checkpoint

DATA = {"data_set": "random", "digest": "sha256:0", "documents": 8, "sequence_length": 20}
FAMILIES: tuple[Family, ...] = ("mamba1", "mamba2")


def recipes(family: Family) -> dict[str, Recipe]:
    """Every preset, and what differs from them in what is stored."""
    found = {
        name: preset.recipe(family, hybrid=("W4A8", "W4A16") if preset.is_hybrid else None)
        for name, preset in PRESETS.items()
    }
    found["plain"] = Recipe(rotate=False)
    found["half head"] = Recipe(w_bits=4, a_bits=16, quantize_embedding=True)
    found["act order, exact"] = Recipe(
        w_bits=4, apply_gptq=True, act_order=True, observer="exact", percentile_alpha=0.999, quantize_lm_head=True
    )
    if family == "mamba2":
        found["grouped, natural basis"] = Recipe(rotate=False, group_heads=True)
    return found


CASES = [(family, name) for family in FAMILIES for name in recipes(family)]


def base(directory: Path, family: Family, **changes: Any) -> LoadedModel:
    """A small random model with states in groups where there are heads."""
    if family == "mamba2":
        changes = {"ssm_ngroups": 2, **changes}
    return load_model(str(write_checkpoint(directory / "base", small_config(family, **changes))))


def batches() -> list[TokenBatch]:
    """Eight documents of unlike lengths."""
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(0, 4000, (20 - i,), generator=generator).tolist() for i in range(8)]
    return batch_documents(ids, 4)


def quantize_and_save(loaded: LoadedModel, recipe: Recipe, folder: Path) -> Artifact:
    """The whole way; `loaded` is quantized afterwards."""
    if recipe.rotate:
        rotate_model(loaded.model)
    calibration = Calibration(loaded.model, [recipe], batches(), (0,))
    for _ in calibration.run():
        pass
    reports = [
        report
        for report in convert(loaded.model, recipe, calibration)
        if isinstance(report, LayerReport | ReorderReport)
    ]
    artifact = Artifact.of(folder, loaded, recipe, DATA)
    artifact.save(loaded.model, loaded, recipe, calibration, DATA, reports, {})
    assert artifact.reports([0]) == reports
    return artifact


def logits(loaded: LoadedModel) -> Tensor:
    """Of a prefill and three steps: the state's scales are in them."""
    ids = torch.arange(24).view(2, 12) * 31 % 4000
    cache = loaded.model.new_cache(2)
    steps = [loaded.model.prefill(ids[:, :9], None, cache)]
    steps += [loaded.model.step(ids[:, i], cache) for i in (9, 10, 11)]
    return torch.stack([*steps, *loaded.model.forward(ids).unbind(1)])


@pytest.mark.parametrize(("family", "name"), CASES)
def test_a_saved_model_is_bit_equal(family: Family, name: str, tmp_path: Path) -> None:
    """What comes back has the same tensors, the same structure and the same logits, and is no larger than it says."""
    loaded = base(tmp_path, family)
    artifact = quantize_and_save(loaded, recipes(family)[name], tmp_path / "saved")
    again = load_model(str(artifact.path))
    assert torch.equal(logits(again), logits(loaded))
    before, after = loaded.model.state_dict(), again.model.state_dict()
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        assert torch.equal(tensor, after[key]), key
    assert Structure.of(again.model) == Structure.of(loaded.model)
    header = 16384
    assert size_bytes(loaded.model) < again.size_bytes < size_bytes(loaded.model) + header
    assert again.tokenizer.digest == loaded.tokenizer.digest
    assert again.quantization is not None
    assert Recipe.from_facts(again.quantization.recipe) == recipes(family)[name]


def test_a_saved_model_is_bit_equal_in_a_new_process(tmp_path: Path) -> None:
    """Nothing of it is in the process that made it."""
    loaded = base(tmp_path, "mamba2")
    artifact = quantize_and_save(loaded, recipes("mamba2")["quamba2-w4ax"], tmp_path / "saved")
    program = (
        "import sys, torch\n"
        "from quamba.models.loading import load_model\n"
        "from tests.quamba.test_artifacts import logits\n"
        "torch.save(logits(load_model(sys.argv[1])), sys.argv[2])\n"
    )
    found = tmp_path / "logits.pt"
    subprocess.run([sys.executable, "-c", program, artifact.path, found], check=True)
    assert torch.equal(torch.load(found), logits(loaded))


@pytest.mark.parametrize(
    "changes", [{"ssm_D_has_hdim": True}, {"ssm_rmsnorm": False}, {"tie_embeddings": False}, {"ssm_d_conv": 2}]
)
def test_unusual_structures_come_back(changes: dict[str, Any], tmp_path: Path) -> None:
    """The parts that only some checkpoints have are kept too."""
    loaded = base(tmp_path, "mamba2", **changes)
    artifact = quantize_and_save(loaded, Recipe(group_heads=True, rotate=False), tmp_path / "saved")
    assert torch.equal(logits(load_model(str(artifact.path))), logits(loaded))


def test_the_file_holds_tensors_in_their_canonical_form_alone(tmp_path: Path) -> None:
    """int8 rows, 4-bit codes as pairs with their group scales; the description is JSON without class names."""
    loaded = base(tmp_path, "mamba2")
    artifact = quantize_and_save(loaded, recipes("mamba2")["quamba2-w4a8"], tmp_path / "saved")
    tensors = load_file(artifact.path / "model.safetensors")
    c = loaded.config
    rows = c.d_inner + c.conv_dim + c.nheads
    packed = tensors["backbone.layers.0.mixer.in_proj.codes"]
    assert packed.dtype == torch.uint8
    assert packed.shape == (rows, c.d_model // 2)
    assert tensors["backbone.layers.0.mixer.in_proj.group_scale"].shape == (rows, 1)
    assert tensors["backbone.layers.0.mixer.conv1d.codes"].dtype == torch.int8
    groups = tensors["backbone.layers.0.mixer.state_scale_table"]
    assert groups.shape[0] <= 2 * 16
    config = json.loads((artifact.path / "config.json").read_text())
    stored = config["quantization_config"]
    assert stored["quant_method"] == "quamba"
    assert stored["calibration"] == DATA
    assert stored["base_model"]["digest"] == loaded.digest
    assert stored["clipping"]["x_conv_out:input"] == {"kind": "minmax", "percentile_alpha": 1.0}
    assert stored["gptq"] == {"damp_frac": 0.05, "act_order": False, "block": 128}
    assert len(stored["reorder"]["layers"]) == c.n_layer
    assert stored["structure"]["hadamard"]["residual"] == {"base": 1, "doublings": 5, "blocks": 1}
    assert config["tie_embeddings"] is False
    text = json.dumps(stored)
    assert "Linear" not in text
    assert "quamba." not in text


def test_what_decides_the_model_decides_its_place(tmp_path: Path) -> None:
    """Any other option, base model or data: another directory; the same: the same one."""
    loaded = base(tmp_path, "mamba2")
    recipe = Recipe(percentile_alpha=1.0)
    others = [
        Artifact.of(tmp_path, loaded, replace(recipe, **change), DATA).path
        for change in (
            {},
            {"percentile_alpha": 0.999999},
            {"percentile_alpha": 0.9999999},
            {"percentile_alpha": None},
            {"observer": "exact"},
            {"rotate": False},
            {"group_heads": True},
            {"w_bits": 4},
            {"quantize_lm_head": True},
            {"per_tensor_weights": True},
            {"apply_gptq": True},
            {"apply_gptq": True, "act_order": True},
        )
    ]
    others.append(Artifact.of(tmp_path, loaded, recipe, {**DATA, "sequence_length": 21}).path)
    others.append(Artifact.of(tmp_path, replace(loaded, digest="sha256:1"), recipe, DATA).path)
    assert len(set(others)) == len(others)
    assert Artifact.of(tmp_path, loaded, Recipe(percentile_alpha=1.0), dict(DATA)).path == others[0]


def test_only_the_same_recipe_and_base_are_used_again(tmp_path: Path) -> None:
    """A directory of that name that holds something else, or half of it, is as good as none."""
    loaded = base(tmp_path, "mamba1")
    recipe = Recipe()
    artifact = quantize_and_save(loaded, recipe, tmp_path / "saved")
    assert artifact.reports([0]) is not None
    assert artifact.reports([0, 1]) is None  # Of layer 1 nothing was reported.
    assert replace(artifact, recipe_digest="sha256:0").reports([0]) is None
    (artifact.path / "calibration_report.json").write_text("{}")
    assert artifact.reports([0]) is None
    (artifact.path / "config.json").write_text("{")
    assert artifact.reports([0]) is None
    assert Artifact.of(tmp_path / "nowhere", loaded, recipe, DATA).reports([0]) is None


def test_an_interrupted_save_leaves_nothing_that_looks_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it ends: what was there before stays, and no directory is left that could be loaded."""
    loaded = base(tmp_path, "mamba1")
    folder = tmp_path / "saved"
    with monkeypatch.context() as patch:

        def full(*_args: Any, **_options: Any) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(saving, "_sync", full)
        with pytest.raises(SaveError, match=r"cannot be saved.*No space left"):
            quantize_and_save(loaded, Recipe(), folder)
    assert not list(folder.iterdir())
    killed = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from quamba.flow.recipe import Recipe\n"
        "from quamba.models import saving\n"
        "from tests.quamba import test_artifacts as t\n"
        "saving._move = lambda *_: os._exit(9)\n"
        "t.quantize_and_save(t.base(Path(sys.argv[1]), 'mamba1'), Recipe(), Path(sys.argv[1]) / 'saved')\n"
    )
    assert subprocess.run([sys.executable, "-c", killed, tmp_path / "other"], check=False).returncode == 9
    left = list((tmp_path / "other" / "saved").iterdir())
    assert [path.name[0] for path in left] == ["."]


def test_saving_again_replaces_what_is_there(tmp_path: Path) -> None:
    """A damaged directory of that name is replaced whole."""
    artifact = quantize_and_save(base(tmp_path, "mamba1"), Recipe(), tmp_path / "saved")
    (artifact.path / "model.safetensors").write_bytes(b"")
    (artifact.path / "left over").write_text("x")
    loaded = base(tmp_path, "mamba1")
    quantize_and_save(loaded, Recipe(), tmp_path / "saved")
    assert torch.equal(logits(load_model(str(artifact.path))), logits(loaded))
    assert not (artifact.path / "left over").exists()
    assert [path.name for path in artifact.path.parent.iterdir()] == [artifact.path.name]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda config: config["quantization_config"].update(quant_method="gptq"), "quantized by 'gptq'"),
        (lambda config: config["quantization_config"].update(format_version=99), "format 99"),
        (lambda config: config["quantization_config"].pop("recipe"), "damaged"),
        (lambda config: config["quantization_config"]["structure"].update(layers=["W9A9", "W8A8"]), "damaged"),
        (lambda config: config["quantization_config"]["structure"]["layers"].pop(), "2 layers and describes 1"),
        (lambda config: config.update(d_model=64), r"config.json says \[64\]"),
    ],
)
def test_a_damaged_description_is_refused(damage: Any, message: str, tmp_path: Path) -> None:
    """One line that says what is wrong, never a wrong number."""
    artifact = quantize_and_save(base(tmp_path, "mamba1"), Recipe(), tmp_path / "saved")
    path = artifact.path / "config.json"
    config = json.loads(path.read_text())
    damage(config)
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError, match=message) as caught:
        load_model(str(artifact.path))
    assert "\n" not in str(caught.value)


def test_other_weights_than_the_saved_ones_are_refused(tmp_path: Path) -> None:
    """A flipped code is found by the digest; a lost or foreign tensor by its name."""
    artifact = quantize_and_save(base(tmp_path, "mamba2"), Recipe(group_heads=True), tmp_path / "saved")
    weights = artifact.path / "model.safetensors"
    tensors = load_file(weights)
    tensors["backbone.layers.0.mixer.in_proj.codes"][0, 0] += 1
    save_file(tensors, weights)
    with pytest.raises(ModelError, match="not the ones that were saved"):
        load_model(str(artifact.path))
    assert check_model(str(artifact.path))[1] is not None
