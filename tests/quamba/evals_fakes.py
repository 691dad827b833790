"""A small causal model with the interface of the real ones, and slow, obvious computations to compare with."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from quamba.models.tokenizer import Tokenizer, load_tokenizer

TOKENIZER_DIRECTORY = Path(__file__).parents[2] / "models" / "mamba-2m"
VOCABULARY = 4104  # padded beyond the tokenizer's 4096
DECAY = 0.8


@dataclass
class FakeCache:
    """The sum that the model remembers, [Bt, D]."""

    total: Tensor | None = None

    def select(self, rows: Tensor) -> "FakeCache":
        assert self.total is not None
        return FakeCache(self.total[rows])


class FakeModel:
    """h_t = DECAY * h_{t-1} + embedding[x_t]; what lies beyond a row's length is NaN, as a trap."""

    device = torch.device("cpu")

    def __init__(self, width: int = 12) -> None:
        generator = torch.Generator().manual_seed(7)
        self.embedding = torch.randn(VOCABULARY, width, generator=generator)
        self.head_weight = 1.5 * torch.randn(VOCABULARY, width, generator=generator)
        self.shapes_read: list[tuple[int, ...]] = []
        self.rows_projected = 0

    def _scan(self, input_ids: Tensor, start: Tensor | None = None) -> Tensor:
        total = torch.zeros(len(input_ids), self.embedding.shape[1]) if start is None else start
        steps = []
        for column in self.embedding[input_ids].unbind(1):
            total = DECAY * total + column
            steps.append(total)
        return torch.stack(steps, dim=1)

    def hidden_states(self, input_ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        self.shapes_read.append(tuple(input_ids.shape))
        hidden = torch.tanh(self._scan(input_ids))
        if lengths is not None:
            hidden[torch.arange(input_ids.shape[1])[None, :] >= lengths[:, None]] = torch.nan
        return hidden

    def head(self, hidden: Tensor) -> Tensor:
        self.rows_projected += hidden.shape[:-1].numel()
        return hidden @ self.head_weight.T

    def new_cache(self, batch_size: int) -> FakeCache:
        del batch_size
        return FakeCache()

    def prefill(self, input_ids: Tensor, lengths: Tensor | None, cache: FakeCache) -> Tensor:
        totals = self._scan(input_ids)
        ends = torch.full((len(input_ids),), input_ids.shape[1]) if lengths is None else lengths
        cache.total = totals[torch.arange(len(input_ids)), ends - 1]
        return self.head(torch.tanh(cache.total))

    def step(self, input_ids: Tensor, cache: FakeCache) -> Tensor:
        assert cache.total is not None
        cache.total = DECAY * cache.total + self.embedding[input_ids]
        return self.head(torch.tanh(cache.total))


@dataclass
class Fake:
    """A loaded fake model."""

    model: FakeModel = field(default_factory=FakeModel)
    tokenizer: Tokenizer = field(default_factory=lambda: load_tokenizer(TOKENIZER_DIRECTORY))
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def log_probs_of(loaded: Fake, tokens: Sequence[int]) -> Tensor:
    """log p(next token | tokens up to here), float64 [L, V], one text at a time, the whole softmax."""
    hidden = loaded.model.hidden_states(torch.tensor([list(tokens)]))[0]
    return torch.log_softmax(loaded.model.head(hidden).double(), dim=-1)


def score_of(loaded: Fake, context: Sequence[int], continuation: Sequence[int]) -> tuple[float, bool]:
    """Log probability and greediness of a continuation, token by token."""
    table = log_probs_of(loaded, [*context, *continuation])
    total, greedy = 0.0, True
    for place, token in enumerate(continuation, start=len(context) - 1):
        total += float(table[place, token])
        greedy = greedy and int(table[place].argmax()) == token
    return total, greedy
