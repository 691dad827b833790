"""GPTQ on trained models: in every layer no worse than rounding, on activations of texts that it has not seen."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from quamba.corpora import calibration_documents
from quamba.flow.batches import TokenBatch, batch_documents
from quamba.flow.convert import float_linear
from quamba.flow.solve import in_proj_blocks
from quamba.gptq import Hessian, gptq
from quamba.granularity import SCHEMES
from quamba.models.loading import load_model
from quamba.nn.model import Layer, MambaLM
from quamba.primitives import QuantizedWeight, quantize_weight
from quamba.transforms.rotation import rotate_model
from tests.quamba.test_reference_scores import model_directory

INPUTS = {"in_proj:input": "in_proj", "out_proj:input": "out_proj"}


def projection_inputs(model: MambaLM, batches: list[TokenBatch]) -> dict[tuple[int, str], Tensor]:
    """What the float model's projections read, [tokens, K] for each layer and projection."""
    seen: dict[tuple[int, str], list[Tensor]] = {}

    def keep(layer: int, columns: Mapping[str, int], values: Tensor, counts: Tensor | None) -> None:
        if (name := INPUTS.get(next(iter(columns)))) is not None:
            real = values if counts is None else values[torch.arange(values.shape[1]) < counts[:, None]]
            seen.setdefault((layer, name), []).append(real.reshape(-1, values.shape[-1]).clone())

    for batch in batches:
        model.hidden_states(batch.input_ids, batch.lengths, tap=keep)
    return {key: torch.cat(parts) for key, parts in seen.items()}


@pytest.mark.parametrize("name", ["mamba-2m", "mamba2-4m"])
@pytest.mark.parametrize("scheme", ["W4A16", "W8A8"])
def test_no_layer_is_worse_than_rounded(name: str, scheme: str) -> None:
    """Output error on held-out passages <= that of rounding, on the grid that is stored; at 4 bits clearly less."""
    loaded = load_model(str(model_directory(name)))
    rotate_model(loaded.model)
    ids = loaded.tokenizer.encode_batch(calibration_documents("builtin", 32).texts)
    known = projection_inputs(loaded.model, batch_documents(ids[:24], 8, 256))
    unseen = projection_inputs(loaded.model, batch_documents(ids[24:], 8, 256))
    ratios = []
    for (index, projection), x in known.items():
        layer = loaded.model.layers[index]
        assert isinstance(layer, Layer)
        weight = float_linear(getattr(layer.mixer, projection)).weight
        blocks = in_proj_blocks(layer.mixer) if projection == "in_proj" else None
        hessian = Hessian(x.shape[1])
        hessian.add(x)
        solved = gptq(weight, hessian.matrix(), SCHEMES[scheme], blocks=blocks)
        rounded = quantize_weight(weight, SCHEMES[scheme], blocks=blocks)

        def error(quantized: QuantizedWeight, w: Tensor = weight, y: Tensor = unseen[index, projection]) -> float:
            return float(((quantized.dequantize() - w) @ y.t()).double().square().mean())

        ratios.append(error(solved) / error(rounded))
    assert len(ratios) == 2 * loaded.config.n_layer
    assert max(ratios) <= 1.0, ratios
    if scheme == "W4A16":
        assert sum(ratios) / len(ratios) < 0.85
