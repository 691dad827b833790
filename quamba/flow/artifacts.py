"""Quantized models that are kept: where one belongs, whether it is there, and what is written beside its tensors."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from quamba.errors import ModelError
from quamba.flow.calibrate import Calibration
from quamba.flow.recipe import Recipe
from quamba.flow.stored_reports import reports_of, stored_reports
from quamba.gptq import BLOCK, DAMP_FRAC
from quamba.models.loading import LoadedModel
from quamba.models.quantization import read_quantization
from quamba.models.saving import save_model
from quamba.nn.model import MambaLM
from quamba.reports import LayerReport, ReorderReport
from quamba.statistics import registered
from quamba.transforms.reorder import CHANNEL_GROUPS, HEAD_GROUPS

_REPORTS_FILE = "calibration_report.json"
_DIGEST_CHARACTERS = 12


@dataclass(frozen=True, slots=True)
class Artifact:
    """A quantized model's place: two recipes, base models or calibrations never share one.

    Attributes:
        path: the directory.
        recipe_digest: "sha256:..." of all that decides what is in it.
    """

    path: Path
    recipe_digest: str

    @classmethod
    def of(cls, folder: Path, base: LoadedModel, recipe: Recipe, calibration: Mapping[str, Any]) -> "Artifact":
        """The place below `folder`, named after model, bits and the digest of the recipe.

        Args:
            folder: for models.
            base: what is quantized.
            recipe: how.
            calibration: which data; plain values that tell any two apart.
        """
        decides = {"recipe": recipe.facts(), "base_model": base.digest, "calibration": dict(calibration)}
        text = json.dumps(decides, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        model = re.sub(r"[^\w.-]+", "-", base.directory.resolve().name).strip(".-") or "model"
        bits = f"w{recipe.w_bits}a{'x' if recipe.hybrid is not None else recipe.a_bits}"
        return cls(folder / f"{model}-{bits}-{digest[:_DIGEST_CHARACTERS]}", f"sha256:{digest}")

    def reports(self, layers: Iterable[int]) -> "list[LayerReport | ReorderReport] | None":
        """What its calibration reported, if the model is there, whole, and made just so; None: it is not.

        Args:
            layers: whose tensors are wanted.
        """
        if registered():
            return None  # Statistics of the user's own are measured where they are asked for.
        try:
            quantization = read_quantization(self.path)
            if quantization is None or quantization.recipe_digest != self.recipe_digest:
                return None
            stored = json.loads((self.path / _REPORTS_FILE).read_text(encoding="utf-8"))
            if not set(layers) <= set(stored["layers"]):
                return None
            return reports_of(stored, set(layers))
        except (ModelError, OSError, ValueError, KeyError, TypeError):
            return None  # Damaged or half there: it is made anew.

    def save(
        self,
        model: MambaLM,
        base: LoadedModel,
        recipe: Recipe,
        calibration: Calibration,
        data: Mapping[str, Any],
        reports: Sequence[LayerReport | ReorderReport],
        versions: Mapping[str, Any],
    ) -> str:
        """Write the model, replacing what is there.

        Args:
            model: quantized.
            base: what it was made of.
            recipe: how.
            calibration: by which its scales were chosen.
            data: which data that was.
            reports: what it reported.
            versions: of the programs that made it.

        Returns:
            "sha256:..." of its weights.

        Raises:
            SaveError: it cannot be written.
        """
        layers = sorted(calibration.detailed)
        facts = {
            "recipe": recipe.facts(),
            "recipe_digest": self.recipe_digest,
            "base_model": {"name": base.name, "digest": base.digest},
            "calibration": dict(data),
            "clipping": {name: asdict(way) for name, way in calibration.clippings(recipe).items()},
            "gptq": _gptq(recipe),
            "reorder": _reorder(recipe, calibration, base.config.n_layer),
            "versions": {"torch": torch.__version__, **versions},
        }
        text = json.dumps({"layers": layers, **stored_reports(reports)}, indent=1, allow_nan=False)
        return save_model(model, self.path, base=base.directory, facts=facts, more_files={_REPORTS_FILE: text.encode()})


def _gptq(recipe: Recipe) -> dict[str, Any] | None:
    if not recipe.apply_gptq:
        return None
    return {"damp_frac": DAMP_FRAC, "act_order": recipe.act_order, "block": BLOCK}


def _reorder(recipe: Recipe, calibration: Calibration, n_layer: int) -> dict[str, Any] | None:
    if not recipe.group_heads:
        return None
    layers = [calibration.grouping(layer).to_lists() for layer in range(n_layer)]
    return {"head_groups": HEAD_GROUPS, "channel_groups": CHANNEL_GROUPS, "layers": layers}


__all__ = ["Artifact"]
