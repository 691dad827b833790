"""Models that no fused kernels run, as generation sees them: their own steps, from a CUDA graph for each batch size."""

import torch
from torch import Tensor

from quamba.decoding.capture import CapturedStep
from quamba.decoding.replayed import ReplayedDecoder
from quamba.nn.cache import Cache
from quamba.nn.model import MambaLM


class StepRunner:
    """A model's step of one batch size.

    Args:
        model: whatever runs it.
        batch: rows; fewer can be used.
        graph: capture the launches, and replay them from then on; false: the model steps by itself.
    """

    def __init__(self, model: MambaLM, batch: int, *, graph: bool = True) -> None:
        self.batch = batch
        self._model = model
        self._kept = model.new_cache(batch)
        self._ids = torch.zeros(batch, dtype=torch.int64, device=model.device)
        # What a step goes on from has the sizes of what any prompt leaves.
        model.prefill(self._ids[:, None], None, self._kept)
        self._captured = CapturedStep(model, self._kept, batch) if graph else None

    def load(self, cache: Cache) -> None:
        """Take over what a cache remembers; rows that are not used repeat its last."""
        conv = cache.layers[0].conv
        if conv is None:
            raise ValueError("a step goes on from a prompt")
        rows = torch.arange(self.batch, device=conv.device).clamp_(max=len(conv) - 1)
        padded = cache.select(rows)
        if self._captured is None:
            self._kept = padded
        else:
            self._captured.load(padded)

    def store(self, batch: int) -> Cache:
        """A cache of the first rows."""
        kept = self._kept if self._captured is None else self._captured.cache
        return kept.select(torch.arange(batch, device=self._ids.device))

    def step(self, input_ids: Tensor) -> Tensor:
        """One more token a row, int64 [Bt]; logits float32 [Bt, V], overwritten by the next step."""
        self._ids[: len(input_ids)] = input_ids
        if self._captured is None:
            return self._model.step(self._ids, self._kept)[: len(input_ids)]
        return self._captured.step(self._ids)[: len(input_ids)]


class CapturedDecoder(ReplayedDecoder):
    """`quamba.generation.Decoder` over a model's own steps.

    Args:
        model: on a CUDA device.
        graph: capture the launches.
    """

    def __init__(self, model: MambaLM, *, graph: bool = True) -> None:
        super().__init__(model, lambda size: StepRunner(model, size, graph=graph))


__all__ = ["CapturedDecoder", "StepRunner"]
