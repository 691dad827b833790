"""The search for a hybrid: scores that see what activations cost, and the best choice of layers."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quamba.errors import RecipeError
from quamba.flow import convert
from quamba.flow.batches import TokenBatch, batch_documents
from quamba.flow.quantize import quantize
from quamba.flow.recipe import Recipe
from quamba.flow.sensitivity import LayerSensitivity, choose, sensitivities
from quamba.models.config import Family
from quamba.nn.model import MambaLM
from quamba.reports import ProgressReport
from tests.quamba.test_artifacts import base, batches

W4 = Recipe(w_bits=4)


def held_out(batch_size: int = 3) -> list[TokenBatch]:
    """Six documents of unlike lengths that the calibration has not seen."""
    generator = torch.Generator().manual_seed(9)
    ids = [torch.randint(0, 4000, (15 - i,), generator=generator).tolist() for i in range(6)]
    return batch_documents(ids, batch_size)


def scores(model: MambaLM, recipe: Recipe = W4, batch_size: int = 3) -> list[float]:
    """The layers' divergences."""
    found = list(sensitivities(model, recipe, batches(), held_out(batch_size)))
    results = [report for report in found if isinstance(report, LayerSensitivity)]
    assert [result.layer for result in results] == list(range(model.config.n_layer))
    progress = [report for report in found if isinstance(report, ProgressReport) and report.phase == "measure"]
    assert (progress[0].done, progress[-1].done, progress[-1].total) == (0, 6, 6)
    return [result.divergence for result in results]


@pytest.mark.parametrize("family", ["mamba1", "mamba2"])
def test_a_layer_with_outliers_costs_most_and_is_spared(family: Family, tmp_path: Path) -> None:
    """One channel of a layer far larger than all others leaves 8-bit codes for little else."""
    plain = scores(base(tmp_path, family, n_layer=4).model)
    assert all(0.0 < value < 1.0 for value in plain)
    model = base(tmp_path, family, n_layer=4).model
    layer = model.layers[2]
    with torch.no_grad():
        layer.mixer.in_proj.weight[3] *= 300.0  # type: ignore[union-attr,index,operator]  # of x or z: one channel
    damaged = scores(model, Recipe(w_bits=4, rotate=False))
    assert damaged[2] == max(damaged)
    assert damaged[2] > 3 * max(plain)
    assert choose(damaged, 0.25)[2] == "W4A16"


def test_scores_do_not_depend_on_batches_nor_on_the_run(tmp_path: Path) -> None:
    """The same documents side by side in another way, and again: the same numbers but for rounding."""
    first = scores(base(tmp_path, "mamba2").model, Recipe(w_bits=4, group_heads=True))
    again = scores(base(tmp_path, "mamba2").model, Recipe(w_bits=4, group_heads=True))
    other = scores(base(tmp_path, "mamba2").model, Recipe(w_bits=4, group_heads=True), batch_size=1)
    assert first == again
    assert other == pytest.approx(first, rel=1e-2)


def test_the_divergence_is_that_of_the_definition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean over real tokens of sum p (log p - log q), p with float activations, q with 8-bit ones in one layer."""
    recipe = Recipe(w_bits=4, percentile_alpha=1.0)
    found = scores(base(tmp_path, "mamba1").model, recipe)
    # A quantized model's float ends are in half precision, the search's are not.
    monkeypatch.setattr(convert, "_half", lambda weight: weight)
    logits = []
    for hybrid in (("W4A16", "W4A16"), ("W4A8", "W4A16"), ("W4A16", "W4A8")):
        model = base(tmp_path, "mamba1").model
        for _ in quantize(model, Recipe(w_bits=4, percentile_alpha=1.0, hybrid=hybrid), batches()):
            pass
        rows = [torch.log_softmax(model(batch.input_ids, batch.lengths), -1) for batch in held_out(1)]
        logits.append(torch.cat([row[0] for row in rows]).double())
    p, *others = logits
    expected = [float((p.exp() * (p - q)).sum(-1).mean()) for q in others]
    assert found == pytest.approx(expected, rel=1e-3)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=7), st.floats(0, 1))
def test_the_choice_is_the_best_of_all(values: list[float], share: float) -> None:
    """Of all hybrids with as many float layers none costs less."""
    chosen = choose(values, share)
    count = chosen.count("W4A16")
    assert count == math.floor(share * len(values) + 0.5)

    def cost(spared: tuple[int, ...]) -> float:
        return math.fsum(value for layer, value in enumerate(values) if layer not in spared)

    own = cost(tuple(layer for layer, scheme in enumerate(chosen) if scheme == "W4A16"))
    assert own == min(cost(spared) for spared in itertools.combinations(range(len(values)), count))


def test_equal_layers_are_spared_from_the_first() -> None:
    """The same scores give the same choice."""
    assert choose([1.0, 1.0, 1.0, 1.0], 0.5) == ("W4A16", "W4A16", "W4A8", "W4A8")
    assert choose([1.0, 2.0], 0.0) == ("W4A8", "W4A8")
    assert choose([1.0, 2.0], 1.0) == ("W4A16", "W4A16")


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_share_outside_its_interval_is_refused(share: float) -> None:
    """It says what a share is."""
    with pytest.raises(RecipeError, match="between 0 and 1"):
        choose([1.0], share)


def test_what_cannot_be_searched_is_refused(tmp_path: Path) -> None:
    """Scores that are no numbers; recipes of other bits; heads where there are none."""
    with pytest.raises(RecipeError, match="no number"):
        choose([math.nan, 1.0], 0.5)
    loaded = base(tmp_path, "mamba1")
    for recipe in (Recipe(), Recipe(w_bits=4, a_bits=16), Recipe(w_bits=4, group_heads=True)):
        with pytest.raises(RecipeError):
            next(sensitivities(loaded.model, recipe, batches(), held_out()))
