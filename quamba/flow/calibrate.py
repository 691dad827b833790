"""One sweep over the calibration documents; everything the quantizers and the reports need is kept from it."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from quamba.errors import DataError
from quamba.flow.recipe import Recipe
from quamba.flow.scales import (
    GROUPED_SITES,
    SSD_GROUPED_SITES,
    choose_grouping,
    grouped_clip,
    in_old_order,
    ranges_of,
)
from quamba.flow.sites import HEAD_SITE, SITES, tensor_name
from quamba.nn.mixer import STATE_STRIDE
from quamba.nn.model import MambaLM
from quamba.observers.clipping import MINMAX, Clipping
from quamba.observers.observer import Observer
from quamba.observers.report import report
from quamba.observers.station import Station
from quamba.qtypes import scale_of
from quamba.reports import LayerReport, ProgressReport, ReorderRanges
from quamba.transforms.grouping import Grouping

# What is quantized of activations is quantized to these.
_ACTIVATION_BITS = 8


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Documents side by side.

    Attributes:
        input_ids: int64 [Bt, L], rows right-padded with 0.
        lengths: int64 [Bt].
    """

    input_ids: Tensor
    lengths: Tensor


def batch_documents(
    token_ids: Sequence[Sequence[int]], batch_size: int, max_tokens: int | None = None
) -> list[TokenBatch]:
    """Documents in their order, `batch_size` at a time, each cut to `max_tokens`; those without tokens are left out.

    Raises:
        DataError: none of them has a token.
        ValueError: batch_size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    documents = [ids[:max_tokens] for ids in token_ids if len(ids)]
    if not documents:
        raise DataError("the calibration data holds no tokens; give documents with text")
    batches = []
    for start in range(0, len(documents), batch_size):
        part = documents[start : start + batch_size]
        lengths = torch.tensor([len(ids) for ids in part])
        input_ids = torch.zeros(len(part), int(lengths.max()), dtype=torch.int64)
        for row, ids in enumerate(part):
            input_ids[row, : len(ids)] = torch.tensor(ids)
        batches.append(TokenBatch(input_ids, lengths))
    return batches


class Calibration:
    """The observers of all watched tensors of a model: one sweep, whatever recipes are to be built of it.

    Args:
        model: float, rotated already where it is to be.
        recipes: say what is asked of the sweep.
        batches: what will be swept over.
        detailed: layers whose tensors can be reported afterwards; the head's always can.
    """

    def __init__(
        self, model: MambaLM, recipes: Sequence[Recipe], batches: Sequence[TokenBatch], detailed: Collection[int]
    ) -> None:
        self.model = model
        self.recipes = tuple(recipes)
        self.batches = batches
        self.detailed = frozenset(detailed)
        self._documents = sum(len(batch.lengths) for batch in batches)
        self._tokens = sum(int(batch.lengths.sum()) for batch in batches)
        self._states = sum(int(((batch.lengths + STATE_STRIDE - 1) // STATE_STRIDE).sum()) for batch in batches)
        self._grouped = any(recipe.group_heads for recipe in recipes)
        self._groupings: dict[int, Grouping] = {}
        sites = SITES[model.config.family]
        n_layer = model.config.n_layer
        self.observers: dict[tuple[int, str], Observer] = {
            (layer, op): self._observer(op, layer in self.detailed) for layer in range(n_layer) for op in sites
        }
        self.observers[n_layer, HEAD_SITE] = self._observer(HEAD_SITE, True)
        # Of each tensor that holds watched ones, by the first of them.
        self._stations: dict[tuple[int, str], Station] = {}

    def _observer(self, op: str, detailed: bool) -> Observer:
        total = self._states if op.startswith("ssm_state_act") else self._tokens
        clippings = {self.clipping(recipe, op) for recipe in self.recipes}
        return Observer(clippings, total, self._documents, detailed, grouped=self._grouped and op in GROUPED_SITES)

    def clipping(self, recipe: Recipe, op: str) -> Clipping:
        """How the interval of a watched tensor is chosen."""
        percentile = SITES[self.model.config.family].get(op, False)
        return recipe.clipping_for(self.model.config.d_model) if percentile else MINMAX

    def grouping(self, layer: int) -> Grouping:
        """A layer's order and groups of heads and channels; they do not depend on the recipe."""
        if layer not in self._groupings:
            observer = self.observers[layer, "x_conv_out:input"]
            self._groupings[layer] = choose_grouping(observer, self.model.config)
        return self._groupings[layer]

    def scale(self, recipe: Recipe, layer: int, op: str) -> Tensor:
        """A tensor's scale, float32: a single value, or a table where heads are grouped (`quamba.flow.scales`)."""
        observer, clipping = self.observers[layer, op], self.clipping(recipe, op)
        if not recipe.group_heads or op not in (*GROUPED_SITES, *SSD_GROUPED_SITES):
            return scale_of(observer.clip(clipping)).to(self.model.device)
        clips = grouped_clip(op, observer, clipping, self.grouping(layer), self.model.config)
        return scale_of(clips.to(self.model.device))

    def report(self, recipe: Recipe, layer: int, op: str) -> LayerReport:
        """A watched tensor's statistics; of one that is grouped with what reordering did to it."""
        name, observer, clipping = tensor_name(layer, op), self.observers[layer, op], self.clipping(recipe, op)
        if not recipe.group_heads or op not in (*GROUPED_SITES, *SSD_GROUPED_SITES):
            return report(observer, name, clipping, _ACTIVATION_BITS)
        grouping = self.grouping(layer)
        clips = grouped_clip(op, observer, clipping, grouping, self.model.config)
        if op in SSD_GROUPED_SITES:
            return report(observer, name, clipping, _ACTIVATION_BITS, clips)
        found = report(observer, f"{name}_reordered", clipping, _ACTIVATION_BITS, in_old_order(clips, grouping))
        return replace(found, reorder=self.ranges(layer, op))

    def ranges(self, layer: int, op: str) -> ReorderRanges:
        """What grouping and reordering did to the range of one of `GROUPED_SITES`."""
        return ranges_of(op, self.observers[layer, op], self.grouping(layer), self.model.config)

    def run(self) -> Iterator[ProgressReport]:
        """The sweep, reporting documents done after each batch."""
        total = sum(len(batch.lengths) for batch in self.batches)
        done = 0
        yield ProgressReport("calibrate", done, total, "documents")
        device = self.model.device
        for batch in self.batches:
            whole = bool((batch.lengths == batch.input_ids.shape[1]).all())
            lengths = None if whole else batch.lengths.to(device)
            self.model.hidden_states(batch.input_ids.to(device), lengths, tap=self._observe)
            done += len(batch.lengths)
            yield ProgressReport("calibrate", done, total, "documents")

    def _observe(self, layer: int, columns: Mapping[str, int], values: Tensor, counts: Tensor | None) -> None:
        key = layer, next(iter(columns))
        if key not in self._stations:
            self._stations[key] = Station({self.observers[layer, op]: width for op, width in columns.items()})
        self._stations[key].update(values, counts)


__all__ = ["Calibration", "TokenBatch", "batch_documents"]
