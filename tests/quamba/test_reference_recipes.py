"""What recipes cost trained models: sizes on disk, and scores against stored expectations."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from quamba.corpora import calibration_documents, perplexity_text
from quamba.evals import perplexity
from quamba.flow.artifacts import Artifact
from quamba.flow.batches import batch_documents
from quamba.flow.calibrate import Calibration
from quamba.flow.quantize import convert, quantize
from quamba.models.loading import LoadedModel, load_model
from quamba.nn.conv import QCausalConv1d
from quamba.nn.embedding import QEmbedding
from quamba.nn.linear import QLinear
from quamba.presets import PRESETS
from quamba.reports import PerplexityReport
from quamba.transforms.rotation import rotate_model
from tests.bench.quality import WINDOW, Subject, hidden_states, lambada, quantized, wikitext
from tests.quamba.test_reference_scores import model_directory

# Perplexity on the shipped text, 4 windows, calibrated on 16 documents; None: the float model.
GUTENBERG = {
    ("mamba-2m", None): 28.906,
    ("mamba-2m", "quamba1"): 29.059,
    ("mamba-2m", "quamba2-w8a8"): 29.113,
    ("mamba-2m", "quamba2-w4a8"): 30.828,
    ("mamba-2m", "quamba2-w4a16"): 30.554,
    ("mamba-2m", "quamba2-w4ax"): 30.684,
    ("mamba2-4m", None): 28.066,
    ("mamba2-4m", "quamba1"): 28.177,
    ("mamba2-4m", "quamba2-w8a8"): 28.183,
    ("mamba2-4m", "quamba2-w4a8"): 29.017,
    ("mamba2-4m", "quamba2-w4a16"): 28.878,
    ("mamba2-4m", "quamba2-w4ax"): 28.801,
}


@pytest.mark.parametrize(("name", "preset"), GUTENBERG)
def test_a_preset_costs_no_more_than_it_did(name: str, preset: str | None) -> None:
    """Perplexity within 0.8 % of what is stored."""
    loaded = load_model(str(model_directory(name)))
    if preset is not None:
        layers = loaded.config.n_layer
        hybrid = tuple("W4A8" if i % 2 else "W4A16" for i in range(layers)) if PRESETS[preset].is_hybrid else None
        recipe = PRESETS[preset].recipe(loaded.config.family, hybrid=hybrid)
        texts = calibration_documents("builtin", 16, None).texts
        for _ in quantize(loaded.model, recipe, batch_documents(loaded.tokenizer.encode_batch(texts), 16, 512)):
            pass
    *_, report = perplexity(loaded, "gutenberg", batch_size=4, max_windows=4)
    assert isinstance(report, PerplexityReport)
    assert report.perplexity == pytest.approx(GUTENBERG[name, preset], rel=0.008)


# The first 300 passages of LAMBADA (accuracy, perplexity) and 4 windows of WikiText-2, calibrated on 32 documents, as
# measured on an H100; None: the float model.
ON_A_GPU = {
    ("mamba-29m", None): (0.1100, 1421.17, 78.426),
    ("mamba-29m", "quamba2-w8a8"): (0.1067, 1402.42, 78.465),
    ("mamba-29m", "quamba2-w4a16"): (0.0833, 1771.56, 77.842),
    ("mamba2-30m", None): (0.1200, 285.90, 62.154),
    ("mamba2-30m", "quamba2-w8a8"): (0.1200, 285.15, 61.962),
    ("mamba2-30m", "quamba2-w4a16"): (0.1433, 309.51, 62.881),
}


@pytest.mark.long
@pytest.mark.assets
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["mamba-29m", "mamba2-30m"])
def test_a_device_decides_nothing_about_scores(name: str) -> None:
    """Here as there: accuracy within a point (3 passages), perplexities within 2 and 0.5 %; float within rounding."""
    loaded = load_model(str(model_directory(name)), "auto")
    wanted = {preset or "FP32": scores for (model, preset), scores in ON_A_GPU.items() if model == name}
    ids = torch.tensor(loaded.tokenizer.encode(perplexity_text("wikitext2"))[: 4 * WINDOW]).view(4, WINDOW)
    expected = hidden_states(loaded.model, ids)
    seen = set()
    for recipe, model, _ in quantized(loaded, 32, set(wanted)):
        subject = Subject(model, loaded.tokenizer)
        accuracy, _, ppl = lambada(subject, 300, 32)
        wikitext2, divergence = wikitext(subject, loaded.model, expected, ids)
        print(f"{name} {recipe}: {accuracy:.4f} {ppl:.2f} {wikitext2:.3f}, divergence {divergence:.5f}")
        assert accuracy == pytest.approx(wanted[recipe][0], abs=1e-3 if recipe == "FP32" else 0.0101)
        assert ppl == pytest.approx(wanted[recipe][1], rel=1e-4 if recipe == "FP32" else 0.02)
        assert wikitext2 == pytest.approx(wanted[recipe][2], rel=1e-4 if recipe == "FP32" else 0.005)
        seen.add(recipe)
    assert seen == set(wanted)


def quantize_and_save(name: str, preset: str, folder: Path, documents: int) -> tuple[LoadedModel, Path]:
    """A published-style preset on a trained model; the model, quantized, and where it is kept."""
    loaded = load_model(str(model_directory(name)))
    recipe = PRESETS[preset].recipe(loaded.config.family)
    texts = calibration_documents("builtin", documents, None).texts
    batches = batch_documents(loaded.tokenizer.encode_batch(texts), 8, 512)
    rotate_model(loaded.model)
    calibration = Calibration(loaded.model, [recipe], batches, ())
    for _ in calibration.run():
        pass
    for _ in convert(loaded.model, recipe, calibration):
        pass
    artifact = Artifact.of(folder, loaded, recipe, {"documents": documents})
    artifact.save(loaded.model, loaded, recipe, calibration, {"documents": documents}, [], {})
    return loaded, artifact.path


@pytest.mark.long
@pytest.mark.assets
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["mamba-29m", "mamba2-30m"])
@pytest.mark.parametrize(("preset", "most"), [("quamba2-w8a8", 0.52), ("quamba2-w4a8", 0.30), ("quamba2-w4a16", 0.30)])
def test_quantized_parts_are_small_on_disk(name: str, preset: str, most: float, tmp_path: Path) -> None:
    """Codes and all scales of the quantized layers, embedding and head, against the same weights in half precision."""
    loaded, path = quantize_and_save(name, preset, tmp_path, documents=4)
    tensors = load_file(path / "model.safetensors")
    half = stored = 0
    for part, module in loaded.model.named_modules():
        if isinstance(module, QLinear | QEmbedding):
            half += 2 * module.shape[0] * module.shape[1]
        elif isinstance(module, QCausalConv1d):
            half += 2 * (module.codes.numel() + len(module.codes))
        else:
            continue
        prefix = part if part.startswith("lm_head") else f"backbone.{part}"
        stored += sum(tensor.nbytes for key, tensor in tensors.items() if key.startswith(f"{prefix}."))
    assert 0.9 * most * half < stored + 0.1 * half
    assert stored <= most * half
