"""The library's verb: quantize a model, reporting each layer as it is done."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from torch import Tensor

from quamba.flow.calibrate import Calibration, TokenBatch
from quamba.flow.convert import ScaleOf, convert_ends, convert_mixer
from quamba.flow.recipe import Recipe
from quamba.flow.scales import GROUPED_SITES, mean_reduction
from quamba.flow.sites import HEAD_SITE, SITES
from quamba.flow.solve import Solutions, Solver
from quamba.nn.model import Layer, MambaLM
from quamba.reports import LayerReport, ProgressReport, ReorderReport
from quamba.transforms.reorder import permute_mixer
from quamba.transforms.rotation import rotate_model

QuantizationReport = ProgressReport | LayerReport | ReorderReport


def quantize(
    model: MambaLM, recipe: Recipe, batches: Sequence[TokenBatch], *, report_layers: Collection[int] = (0, 1, 2)
) -> Iterator[QuantizationReport]:
    """Calibrate on `batches` and convert `model` in place.

        rotate -> sweep over the calibration data -> for each layer: reorder, solve (GPTQ), report, convert

    The model is whole again only when the iterator is exhausted: abandoned halfway, layers converted so far stay so.

    Args:
        model: float; exhausting the iterator leaves it quantized.
        recipe: what to do.
        batches: the calibration documents (`batch_documents`).
        report_layers: indices of the layers to report; others are watched for their scales alone.

    Yields:
        Progress of the phases "calibrate" (documents) and "quantize" (layers), each reported tensor's statistics, and
        what reordering did to all layers.

    Raises:
        RecipeError: the model cannot be quantized so, or is rotated already.
        TypeError: the model is quantized already.
    """
    recipe.check(model.config)
    if recipe.rotate:
        rotate_model(model)
    calibration = Calibration(model, [recipe], batches, report_layers)
    yield from calibration.run()
    yield from convert(model, recipe, calibration)


def convert(model: MambaLM, recipe: Recipe, calibration: Calibration) -> Iterator[QuantizationReport]:
    """Convert a model in place with what a sweep has found.

    Args:
        model: the swept one, or a copy of it; float, and rotated if the recipe says so.
        recipe: one that the calibration was made for.
        calibration: after its sweep.

    Yields:
        As `quantize`, without the sweep.
    """
    n_layer = model.config.n_layer
    solutions = _solutions(model, recipe, calibration)
    for index, layer in enumerate(model.layers):
        if not isinstance(layer, Layer):
            raise TypeError(f"layer {index} is a {type(layer).__name__}")
        scheme = recipe.scheme(index)
        if recipe.group_heads:
            permute_mixer(layer.mixer, calibration.grouping(index))
        solved = None if solutions is None else solutions.layer(index, layer, scheme)
        if index in calibration.detailed and scheme.activation_bits == 8:
            for op in SITES[model.config.family]:
                yield calibration.report(recipe, index, op)
        convert_mixer(layer.mixer, scheme, _scales(calibration, recipe, index), solved)
        yield ProgressReport("quantize", index + 1, n_layer, "layers")
    head_scheme = recipe.head_scheme
    head = None if solutions is None or head_scheme is None else solutions.head(head_scheme)
    convert_ends(model, recipe, calibration.scale(recipe, n_layer, HEAD_SITE), head)
    yield calibration.report(recipe, n_layer, HEAD_SITE)
    if recipe.group_heads:
        ranges = {(layer, op): calibration.ranges(layer, op) for layer in range(n_layer) for op in GROUPED_SITES}
        yield ReorderReport(n_layer, *mean_reduction(ranges))


def _solutions(model: MambaLM, recipe: Recipe, calibration: Calibration) -> Solutions | None:
    """The weights by GPTQ; recipes of one calibration that differ in their clipping alone have the same."""
    if not recipe.apply_gptq:
        return None
    key = replace(recipe, percentile_alpha=None, observer="minmax")
    if key not in calibration.solutions:
        calibration.solutions[key] = Solutions(Solver(model, calibration.batches, recipe.act_order))
    return calibration.solutions[key]


def _scales(calibration: Calibration, recipe: Recipe, layer: int) -> ScaleOf:
    def scale(op: str) -> Tensor:
        return calibration.scale(recipe, layer, op)

    return scale


__all__ = ["QuantizationReport", "convert", "quantize"]
