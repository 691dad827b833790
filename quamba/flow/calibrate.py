"""One sweep over the calibration documents; everything the quantizers and the reports need is kept from it."""

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from quamba.errors import RecipeError
from quamba.flow.batches import TokenBatch, batch_documents, merge_batches
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
from quamba.flow.solve import Solutions
from quamba.nn.mixer import STATE_STRIDE
from quamba.nn.model import MambaLM
from quamba.observers.clipping import MINMAX, Clipping
from quamba.observers.observer import Observer
from quamba.observers.report import Loss, least_loss, report
from quamba.observers.station import Station
from quamba.observers.watching import device_sweep, tokens_at_once
from quamba.qtypes import scale_of
from quamba.reports import LayerReport, ProgressReport, ReorderRanges
from quamba.transforms.grouping import Grouping

if TYPE_CHECKING:
    from quamba.observers.device_sweep import DeviceSweep

# What is quantized of activations is quantized to these.
_ACTIVATION_BITS = 8
# The tensor whose rows are checkpoints of the state.
_STATE = "ssm_state_act"


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
        if any(buffer.dtype in (torch.float16, torch.bfloat16) for buffer in model.buffers()):
            raise RecipeError("scales and codes are made of float32 weights: calibrate the model as it was loaded")
        self.model = model
        self.recipes = tuple(recipes)
        self.batches = batches
        self.detailed = frozenset(detailed)
        self._documents = sum(len(batch.lengths) for batch in batches)
        self._tokens = sum(int(batch.lengths.sum()) for batch in batches)
        self._states = sum(int(((batch.lengths + STATE_STRIDE - 1) // STATE_STRIDE).sum()) for batch in batches)
        self._grouped = any(recipe.group_heads for recipe in recipes)
        self._groupings: dict[int, Grouping] = {}
        # GPTQ's, which do not depend on how activations are clipped: by the recipe without its clipping.
        self.solutions: dict[Recipe, Solutions] = {}
        sites = SITES[model.config.family]
        n_layer = model.config.n_layer
        chosen = any(len(recipe.clippings_for(model.config.d_model)) > 1 for recipe in recipes)
        self._chosen: dict[tuple[Recipe, int, str], Clipping] = {}
        self.observers: dict[tuple[int, str], Observer] = {
            (layer, op): self._observer(op, layer in self.detailed or (chosen and percentile))
            for layer in range(n_layer)
            for op, percentile in sites.items()
        }
        self.observers[n_layer, HEAD_SITE] = self._observer(HEAD_SITE, True)
        # Of each tensor that holds watched ones, by the first of them.
        self._stations: dict[tuple[int, str], Station] = {}
        self._first: dict[tuple[int, str], tuple[int, str]] = {}
        self._sweep: DeviceSweep | None = None
        self._watched: frozenset[Hashable] | None = None
        self._lengths: list[int] = []

    def _observer(self, op: str, detailed: bool) -> Observer:
        total = self._states if op.startswith(_STATE) else self._tokens
        clippings = {clipping for recipe in self.recipes for clipping in self._candidates(recipe, op)}
        return Observer(clippings, total, self._documents, detailed, grouped=self._grouped and op in GROUPED_SITES)

    def _candidates(self, recipe: Recipe, op: str) -> tuple[Clipping, ...]:
        percentile = SITES[self.model.config.family].get(op, False)
        return recipe.clippings_for(self.model.config.d_model) if percentile else (MINMAX,)

    def clipping(self, recipe: Recipe, layer: int, op: str) -> Clipping:
        """How the interval of a watched tensor is chosen; of several ways the one with the least quantization error."""
        candidates = self._candidates(recipe, op)
        if len(candidates) == 1:
            return candidates[0]
        key = recipe, layer, op
        if key not in self._chosen:
            observer = self.observers[layer, op]
            grouped = recipe.group_heads and op in GROUPED_SITES

            def loss(clipping: Clipping) -> Loss:
                if not grouped:
                    return Loss.of(observer, observer.clip(clipping))
                grouping = self.grouping(layer)
                clips = grouped_clip(op, observer, clipping, grouping, self.model.config)
                return Loss.of_channels(observer, in_old_order(clips, grouping))

            self._chosen[key] = least_loss(candidates, loss)
        return self._chosen[key]

    def clippings(self, recipe: Recipe) -> dict[str, Clipping]:
        """How intervals are chosen: by op, and where each tensor has a way of its own by the tensor's name."""
        found: dict[str, Clipping] = {}
        for op in (*SITES[self.model.config.family], HEAD_SITE):
            candidates = self._candidates(recipe, op)
            if len(candidates) == 1:
                found[op] = candidates[0]
                continue
            for layer in range(self.model.config.n_layer):
                found[tensor_name(layer, op)] = self.clipping(recipe, layer, op)
        return found

    def grouping(self, layer: int) -> Grouping:
        """A layer's order and groups of heads and channels; they do not depend on the recipe."""
        if layer not in self._groupings:
            observer = self.observers[layer, "x_conv_out:input"]
            self._groupings[layer] = choose_grouping(observer, self.model.config)
        return self._groupings[layer]

    def scale(self, recipe: Recipe, layer: int, op: str) -> Tensor:
        """A tensor's scale, float32: a single value, or a table where heads are grouped (`quamba.flow.scales`)."""
        observer, clipping = self.observers[layer, op], self.clipping(recipe, layer, op)
        if not recipe.group_heads or op not in (*GROUPED_SITES, *SSD_GROUPED_SITES):
            return scale_of(observer.clip(clipping)).to(self.model.device)
        clips = grouped_clip(op, observer, clipping, self.grouping(layer), self.model.config)
        return scale_of(clips.to(self.model.device))

    def report(self, recipe: Recipe, layer: int, op: str) -> LayerReport:
        """A watched tensor's statistics; of one that is grouped with what reordering did to it."""
        name, observer = tensor_name(layer, op), self.observers[layer, op]
        clipping = self.clipping(recipe, layer, op)
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
        """The sweep, reporting documents done after each batch.

        On a CUDA device batches are merged, and documents are reported when the device is done with them.
        """
        device = self.model.device
        done, total = 0, self._documents
        yield ProgressReport("calibrate", done, total, "documents")
        self._sweep = device_sweep(device, total)
        batches = self.batches
        if device.type == "cuda":
            batches = merge_batches(batches, tokens_at_once(self.model.config, device))
        waiting: list[tuple[int, torch.cuda.Event]] = []
        for batch in batches:
            self._pass(batch, device)
            done += len(batch.lengths)
            if device.type == "cuda":
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch gives it no types
                event.record()
                waiting.append((done, event))
                if len(waiting) < 2:
                    continue
                reached, event = waiting.pop(0)
                event.synchronize()
                yield ProgressReport("calibrate", reached, total, "documents")
            else:
                yield ProgressReport("calibrate", done, total, "documents")
        if self._sweep is not None:
            self._again(self._sweep.finish(), batches, device)
        if waiting:
            yield ProgressReport("calibrate", done, total, "documents")

    @property
    def watched_anew(self) -> int:
        """How many tensors took a second sweep, as kernels could not watch them in the first."""
        return 0 if self._watched is None else len(self._watched)

    def _pass(self, batch: TokenBatch, device: torch.device) -> None:
        self._lengths = batch.lengths.tolist()
        whole = min(self._lengths) == batch.input_ids.shape[1]
        lengths = None if whole else batch.lengths.to(device)
        self.model.hidden_states(batch.input_ids.to(device), lengths, tap=self._observe)

    def _again(self, keys: Sequence[Hashable], batches: Sequence[TokenBatch], device: torch.device) -> None:
        """Sweep once more for tensors that the device's own sweep could not do."""
        self._sweep = None
        if not keys:
            return
        self._watched = frozenset(keys)
        for layer, op in [key for key, first in self._first.items() if first in self._watched]:
            self.observers[layer, op] = self._observer(op, self.observers[layer, op].detailed)
        for batch in batches:
            self._pass(batch, device)

    def _observe(self, layer: int, columns: Mapping[str, int], values: Tensor, counts: Tensor | None) -> None:
        op = next(iter(columns))
        key = layer, op
        if self._watched is not None and key not in self._watched:
            return
        if self._sweep is None:
            if key not in self._stations:
                self._stations[key] = Station(self._observers_of(layer, columns))
            self._stations[key].update(values, counts)
            return
        lengths = self._lengths
        if op.startswith(_STATE):
            lengths = [-(-n // STATE_STRIDE) for n in lengths]
        self._sweep.watch(key, lambda: self._observers_of(layer, columns), values, counts, lengths)

    def _observers_of(self, layer: int, columns: Mapping[str, int]) -> dict[Observer, int]:
        first = layer, next(iter(columns))
        self._first |= {(layer, op): first for op in columns}
        return {self.observers[layer, op]: width for op, width in columns.items()}


__all__ = ["Calibration", "TokenBatch", "batch_documents"]
