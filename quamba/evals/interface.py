"""What an evaluation needs of a loaded model; `quamba.models.loading.LoadedModel` has it."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class LanguageModel(Protocol):
    """A causal language model. Bt batch, L tokens, D d_model, V padded vocabulary."""

    def hidden_states(self, input_ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What the head reads, float32 [Bt, L, D], of int64 [Bt, L]; arbitrary at and beyond a row's length."""
        ...

    def head(self, hidden: Tensor) -> Tensor:
        """Logits float32 [..., V] of hidden states [..., D]."""
        ...

    def new_cache(self, batch_size: int) -> Any:
        """The memory before the first token; its `select(rows)` keeps the rows with these int64 indices."""
        ...

    def prefill(self, input_ids: Tensor, lengths: Tensor | None, cache: Any) -> Tensor:
        """Logits float32 [Bt, V] of each row's last real position."""
        ...

    def step(self, input_ids: Tensor, cache: Any) -> Tensor:
        """Logits float32 [Bt, V] after one more token a row, int64 [Bt]."""
        ...


class TextTokenizer(Protocol):
    """Text to ids and back; `quamba.models.tokenizer.Tokenizer` is one."""

    @property
    def name(self) -> str:
        """Where it comes from."""
        ...

    @property
    def digest(self) -> str:
        """Digest of its file."""
        ...

    @property
    def vocab_size(self) -> int:
        """Largest id + 1."""
        ...

    @property
    def eos_token_id(self) -> int:
        """The end of a text; also the prefix of a text without context."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text."""
        ...

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of ids."""
        ...


class Evaluable(Protocol):
    """A model with its tokenizer, on a device."""

    @property
    def model(self) -> LanguageModel:
        """The model."""
        ...

    @property
    def tokenizer(self) -> TextTokenizer:
        """Its tokenizer."""
        ...

    @property
    def device(self) -> torch.device:
        """Where its inputs have to be."""
        ...


__all__ = ["Evaluable", "LanguageModel", "TextTokenizer"]
