"""The library's verb: quantize a model, reporting each layer as it is done."""

from collections.abc import Collection, Iterator, Sequence

from torch import Tensor

from quamba.flow.calibrate import Calibration, TokenBatch
from quamba.flow.convert import ScaleOf, convert_mixer
from quamba.flow.recipe import Recipe
from quamba.flow.sites import HEAD_SITE, SITES
from quamba.nn.model import Layer, MambaLM
from quamba.qtypes import scale_of
from quamba.reports import LayerReport, ProgressReport


def quantize(
    model: MambaLM, recipe: Recipe, batches: Sequence[TokenBatch], *, report_layers: Collection[int] = (0, 1, 2)
) -> Iterator[ProgressReport | LayerReport]:
    """Calibrate on `batches` and convert `model` in place.

    The model is whole again only when the iterator is exhausted: abandoned halfway, layers converted so far stay so.

    Args:
        model: float; exhausting the iterator leaves it quantized.
        recipe: what to do.
        batches: the calibration documents (`batch_documents`).
        report_layers: indices of the layers to report; others are watched for their scales alone.

    Yields:
        Progress of the phases "calibrate" (documents) and "quantize" (layers), and each reported tensor's statistics.

    Raises:
        TypeError: the model is quantized already.
    """
    calibration = Calibration(model, recipe, batches, report_layers)
    yield from calibration.run()
    n_layer = model.config.n_layer
    for index, layer in enumerate(model.layers):
        if not isinstance(layer, Layer):
            raise TypeError(f"layer {index} is a {type(layer).__name__}")
        if index in calibration.detailed:
            for op in SITES[model.config.family]:
                yield calibration.report(index, op)
        convert_mixer(layer.mixer, _scales(calibration, index))
        yield ProgressReport("quantize", index + 1, n_layer, "layers")
    yield calibration.report(n_layer, HEAD_SITE)


def _scales(calibration: Calibration, layer: int) -> ScaleOf:
    def scale(op: str) -> Tensor:
        return scale_of(calibration.clip(layer, op)).to(calibration.model.device)

    return scale


__all__ = ["quantize"]
