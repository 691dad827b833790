"""One sweep over the calibration documents; everything the quantizers and the reports need is kept from it."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quamba.errors import DataError
from quamba.flow.recipe import Recipe
from quamba.flow.sites import HEAD_SITE, SITES
from quamba.nn.mixer import STATE_STRIDE
from quamba.nn.model import MambaLM
from quamba.observers.observer import Observer
from quamba.reports import ProgressReport


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
    """The observers of all watched tensors of a model.

    Args:
        model: float.
        recipe: says how they observe.
        batches: what will be swept over.
        detailed: layers whose tensors can be reported afterwards; the head's always can.
    """

    def __init__(
        self, model: MambaLM, recipe: Recipe, batches: Sequence[TokenBatch], detailed: Collection[int]
    ) -> None:
        self.model = model
        self.recipe = recipe
        self.batches = batches
        self.detailed = frozenset(detailed)
        self._alpha = recipe.alpha_for(model.config.d_model)
        self._documents = sum(len(batch.lengths) for batch in batches)
        self._tokens = sum(int(batch.lengths.sum()) for batch in batches)
        self._states = sum(int(((batch.lengths + STATE_STRIDE - 1) // STATE_STRIDE).sum()) for batch in batches)
        sites = SITES[model.config.family]
        n_layer = model.config.n_layer
        self.observers: dict[tuple[int, str], Observer] = {
            (layer, op): self._observer(op, percentile, layer in self.detailed)
            for layer in range(n_layer)
            for op, percentile in sites.items()
        }
        self.observers[n_layer, HEAD_SITE] = self._observer(HEAD_SITE, False, True)

    def _observer(self, op: str, percentile: bool, detailed: bool) -> Observer:
        total = self._states if op.startswith("ssm_state_act") else self._tokens
        kind = self.recipe.observer if percentile else "minmax"
        return Observer(kind, self._alpha, total, self._documents, detailed)

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

    def _observe(self, layer: int, op: str, values: Tensor, counts: Tensor | None) -> None:
        self.observers[layer, op].update(values, counts)


__all__ = ["Calibration", "TokenBatch", "batch_documents"]
