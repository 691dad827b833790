"""One sweep over the calibration data serves any recipes: each gets what it would get alone."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from quamba.flow.calibrate import Calibration
from quamba.flow.quantize import convert, quantize
from quamba.flow.recipe import Recipe
from quamba.models.config import Family
from quamba.nn.model import MambaLM
from quamba.reports import LayerReport, ReorderReport
from tests.quamba.test_artifacts import base, batches

EVERYTHING = [
    Recipe(rotate=False),
    Recipe(rotate=False, percentile_alpha=0.9),
    Recipe(rotate=False, percentile_alpha=0.99, observer="exact"),
    Recipe(rotate=False, observer="minmax"),
    Recipe(rotate=False, percentile_alpha="auto", observer="exact"),
    Recipe(rotate=False, w_bits=4, apply_gptq=True),
    Recipe(rotate=False, w_bits=4, a_bits=16, apply_gptq=True),
]
GROUPED = [
    Recipe(rotate=False, group_heads=True),
    Recipe(rotate=False, group_heads=True, observer="exact", percentile_alpha=0.98),
    Recipe(rotate=False, group_heads=True, observer="exact", percentile_alpha="auto"),
    Recipe(rotate=False, group_heads=True, w_bits=4, apply_gptq=True),
]


@pytest.mark.parametrize("family", ["mamba1", "mamba2"])
def test_one_sweep_serves_alphas_groupings_and_observers(family: Family, tmp_path: Path) -> None:
    """Intervals and quantized tensors are, bit for bit, those of a calibration for the recipe alone."""
    recipes = EVERYTHING + (GROUPED if family == "mamba2" else [])
    model = base(tmp_path, family).model
    calibration = Calibration(model, recipes, batches(), (0, 1))
    for _ in calibration.run():
        pass
    for recipe in recipes:
        shared, alone = copy.deepcopy(model), copy.deepcopy(model)
        together = [r for r in convert(shared, recipe, calibration) if isinstance(r, LayerReport | ReorderReport)]
        apart = [
            r
            for r in quantize(alone, recipe, batches(), report_layers=(0, 1))
            if isinstance(r, LayerReport | ReorderReport)
        ]
        assert [certain(report) for report in together] == [certain(report) for report in apart], recipe
        check_equal(shared, alone)
    assert all(tensor.dtype == torch.float32 for tensor in model.state_dict().values())  # It was never converted.


def certain(report: LayerReport | ReorderReport) -> LayerReport | ReorderReport:
    """Without what is counted in the tail where one was kept that far down, and in the sample where it was not."""
    if isinstance(report, ReorderReport):
        return report
    return replace(report, measured_clipped_ratio=0.0, sqnr_db=0.0)


def check_equal(left: MambaLM, right: MambaLM) -> None:
    """The same tensors by the same names."""
    first, second = left.state_dict(), right.state_dict()
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
