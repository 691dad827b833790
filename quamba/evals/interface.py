"""What an evaluation needs of a loaded model; `quamba.models.loading.LoadedModel` has it."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from quamba.generation import Decoder


class LanguageModel(Decoder, Protocol):
    """A causal language model that can be scored too. Bt batch, L tokens, D d_model, V padded vocabulary."""

    def hidden_states(self, input_ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What the head reads, float32 [Bt, L, D], of int64 [Bt, L]; arbitrary at and beyond a row's length."""
        ...

    def head(self, hidden: Tensor) -> Tensor:
        """Logits float32 [..., V] of hidden states [..., D]."""
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
