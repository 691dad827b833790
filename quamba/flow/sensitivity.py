"""How much 8-bit activations cost in each layer, and which layers a hybrid spares (algorithm 6.3)."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quamba.errors import RecipeError
from quamba.flow.batches import TokenBatch
from quamba.flow.calibrate import Calibration
from quamba.flow.convert import convert_mixer
from quamba.flow.recipe import Recipe
from quamba.granularity import SCHEMES
from quamba.nn.model import Layer, MambaLM
from quamba.reports import ProgressReport
from quamba.transforms.reorder import permute_mixer
from quamba.transforms.rotation import rotate_model

# Logits of so many positions at a time: of 50 000 tokens a hundred megabytes.
_ROWS = 512


@dataclass(frozen=True, slots=True)
class LayerSensitivity:
    """What one layer costs when it alone has 8-bit activations.

    Attributes:
        layer: its index.
        divergence: mean KL(p || q) in nats a token, p the next-token distributions with float activations everywhere,
            q those with 8-bit ones in this layer.
    """

    layer: int
    divergence: float


def sensitivities(
    model: MambaLM, recipe: Recipe, batches: Sequence[TokenBatch], held_out: Sequence[TokenBatch]
) -> Iterator[ProgressReport | LayerSensitivity]:
    """Measure every layer, W4A8 against W4A16 of the same weights.

    Both sides have 4-bit weights, so that only the activations' share is seen; these are rounded, since GPTQ would
    change both sides alike. One layer differs at a time: n layers take n / 2 passes over the held-out documents.

    Args:
        model: float; it is rotated if the recipe says so, and its heads are reordered.
        recipe: of W4A8.
        batches: calibration documents.
        held_out: others, to measure on.

    Yields:
        Progress of the phases "calibrate" and "measure" (documents); then one result a layer, in their order.

    Raises:
        RecipeError: it is not for 4-bit weights and 8-bit activations, or not for this model.
    """
    if (recipe.w_bits, recipe.a_bits, recipe.hybrid) != (4, 8, None):
        raise RecipeError("the search compares W4A8 with W4A16 layers: give a recipe with w_bits 4 and a_bits 8")
    recipe.check(model.config)
    if recipe.rotate:
        rotate_model(model)
    calibration = Calibration(model, [recipe], batches, ())
    yield from calibration.run()
    layers = [layer for layer in model.layers if isinstance(layer, Layer)]
    spared: list[nn.Module] = []
    quantized: list[nn.Module] = []
    for index, layer in enumerate(layers):
        if recipe.group_heads:
            permute_mixer(layer.mixer, calibration.grouping(index))

        def scale(op: str, index: int = index) -> Tensor:
            return calibration.scale(recipe, index, op)

        for name, mixers in (("W4A16", spared), ("W4A8", quantized)):
            mixer = copy.deepcopy(layer.mixer)
            convert_mixer(mixer, SCHEMES[name], scale)
            mixers.append(mixer)
    total, done = sum(len(batch.lengths) for batch in held_out), 0
    sums, tokens = [0.0] * len(layers), 0
    yield ProgressReport("measure", 0, total, "documents")
    for batch in held_out:
        divergences = _divergences(model, layers, spared, quantized, batch)
        sums = [a + b for a, b in zip(sums, divergences.tolist(), strict=True)]
        tokens += int(batch.lengths.sum())
        done += len(batch.lengths)
        yield ProgressReport("measure", done, total, "documents")
    for index, value in enumerate(sums):
        yield LayerSensitivity(index, max(0.0, value / max(1, tokens)))


@torch.no_grad()
def _divergences(
    model: MambaLM,
    layers: Sequence[Layer],
    spared: Sequence[nn.Module],
    quantized: Sequence[nn.Module],
    batch: TokenBatch,
) -> Tensor:
    """The sum over a batch's tokens of each layer's divergence, float64 [layers]."""
    lengths = batch.lengths.to(model.device)
    residual: Tensor = model.embedding(batch.input_ids.to(model.device))
    # Where real tokens are, known without asking the device.
    real = (torch.arange(residual.shape[1]) < batch.lengths[:, None]).flatten().nonzero().flatten().to(model.device)

    def finish(stream: Tensor, first: int) -> Tensor:
        for layer, mixer in zip(layers[first:], spared[first:], strict=True):
            stream = stream + mixer(layer.norm(stream), lengths, None, None)
        hidden: Tensor = model.norm_f(stream).flatten(0, 1)[real]
        return hidden

    reference, found = finish(residual, 0), []
    for index, layer in enumerate(layers):
        normalized = layer.norm(residual)
        changed = residual + quantized[index](normalized, lengths, None, None)
        found.append(_divergence(model, reference, finish(changed, index + 1)))
        residual = residual + spared[index](normalized, lengths, None, None)
    return torch.stack(found)


def _divergence(model: MambaLM, reference: Tensor, changed: Tensor) -> Tensor:
    """Sum over positions of KL(p || q), of final hidden states [T, D]."""
    total = torch.zeros((), dtype=torch.float64, device=reference.device)
    for start in range(0, len(reference), _ROWS):
        p, q = (torch.log_softmax(model.head(hidden[start : start + _ROWS]), -1) for hidden in (reference, changed))
        total += (p.exp() * (p - q)).double().sum()
    return total


def choose(scores: Mapping[int, float] | Sequence[float], share: float) -> tuple[str, ...]:
    """The hybrid that loses least with a share of its layers at 16 bits.

    All layers have the same size, so the best choice of k of them, a knapsack in general, is the k that cost most.

    Args:
        scores: what 8-bit activations cost in each layer.
        share: of layers with float activations, in [0, 1]; their number is rounded, halves up.

    Returns:
        "W4A8" or "W4A16" for each layer; of equal scores lower layers are spared first.

    Raises:
        RecipeError: a share outside [0, 1], or a score that is no number.
    """
    values = [scores[layer] for layer in range(len(scores))]
    if not 0.0 <= share <= 1.0:
        raise RecipeError(f"share must be between 0 and 1, not {share}; 0.25 spares a quarter of the layers")
    if not all(math.isfinite(value) for value in values):
        raise RecipeError("a layer's score is no number: the model overflows on these documents; calibrate on others")
    count = math.floor(share * len(values) + 0.5)
    spared = set(sorted(range(len(values)), key=lambda layer: (-values[layer], layer))[:count])
    return tuple("W4A16" if layer in spared else "W4A8" for layer in range(len(values)))


__all__ = ["LayerSensitivity", "choose", "sensitivities"]
