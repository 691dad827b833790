"""The language model around the mixers: embedding, residual stream, head."""

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Self

import torch
from torch import Tensor, nn

from quamba.models.config import ModelConfig
from quamba.nn.cache import Cache, LayerCache
from quamba.nn.embedding import Embedding, QEmbedding
from quamba.nn.linear import Linear
from quamba.nn.mixer import Tap
from quamba.nn.norm import RMSNorm

# Called with the layer's index (n_layer for the head) and what a mixer's tap is called with: `quamba.nn.mixer.Tap`.
ModelTap = Callable[[int, Mapping[str, int], Tensor, Tensor | None], None]

# On a CPU a batch passes through the layers this many tokens at a time: more leaves the caches, and memory grows.
TOKENS_AT_ONCE = 2048
# Where they are watched, what is done once for each tensor weighs more.
_TOKENS_WATCHED_AT_ONCE = 4096


class Layer(nn.Module):
    """One residual layer: h <- mixer(norm(res))."""

    def __init__(self, norm: RMSNorm, mixer: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.mixer = mixer


class MambaLM(nn.Module):
    """A Mamba language model of either family, float or quantized: the mixers' parts decide.

    Args:
        config: sizes.
        embedding: `Embedding` or `QEmbedding`, [V, D].
        layers: n_layer of them.
        norm_f: the final norm.
        lm_head: `Linear` or `QLinear`, [V, D]; its weight is the embedding's very tensor where the two are tied.

    Attributes:
        residual_rotation: the basis of the residual stream: Identity, or the rotation that all its readers and writers
            went through.
    """

    def __init__(
        self, config: ModelConfig, embedding: nn.Module, layers: list[Layer], norm_f: RMSNorm, lm_head: nn.Module
    ) -> None:
        super().__init__()
        self.config = config
        self._padded_vocab_size = embedding_rows(embedding)
        self.embedding = embedding
        self.layers = nn.ModuleList(layers)
        self.norm_f = norm_f
        self.lm_head = lm_head
        self.residual_rotation: nn.Module = nn.Identity()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Buffers move one by one: what is tied must be tied again.
        head, embedding = self.lm_head, self.embedding
        tied = isinstance(head, Linear) and isinstance(embedding, Embedding) and head.weight is embedding.weight
        module: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch gives it no types
        if tied:
            head.weight = embedding.weight
        return module

    def _layers(self) -> Iterator[Layer]:
        for layer in self.layers:
            if not isinstance(layer, Layer):
                raise TypeError(f"a {type(layer).__name__} is no layer of this model")
            yield layer

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return next(self.buffers()).device

    @property
    def padded_vocab_size(self) -> int:
        """V: rows of the embedding, with those that pad the vocabulary."""
        return self._padded_vocab_size

    @torch.no_grad()
    def hidden_states(
        self,
        input_ids: Tensor,
        lengths: Tensor | None = None,
        *,
        cache: Cache | None = None,
        tap: ModelTap | None = None,
    ) -> Tensor:
        """The normalized residual stream after the last layer, what the head reads.

        Args:
            input_ids: int64 [Bt, L], rows right-padded with any token.
            lengths: real tokens of each row, int64 [Bt]; None: all.
            cache: go on from it, and bring it up to date.
            tap: called with every watched tensor.

        Returns:
            float32 [Bt, L, D]; arbitrary at and beyond a row's length.
        """
        if tap is None and input_ids.shape[1] > 1 and self.device.type == "cuda":
            # It reads models, and is known by name alone: where there is no GPU, none of it is imported.
            reader = importlib.import_module("quamba.decoding.choice").reader_of(self)
            if reader is not None and reader.takes(*input_ids.shape):
                read: Tensor = reader.hidden_states(input_ids, lengths, cache)
                return read
        return self.own_hidden_states(input_ids, lengths, cache, tap)

    @torch.no_grad()
    def own_hidden_states(
        self,
        input_ids: Tensor,
        lengths: Tensor | None = None,
        cache: Cache | None = None,
        tap: ModelTap | None = None,
    ) -> Tensor:
        """The same from the model's own modules, whoever reads prompts for it otherwise."""
        batch, length = input_ids.shape
        at_once = TOKENS_AT_ONCE if tap is None else _TOKENS_WATCHED_AT_ONCE
        if cache is not None or self.device.type != "cpu" or batch * length <= at_once:
            return self._hidden_states(input_ids, lengths, cache, tap)
        hidden = torch.empty(batch, length, self.config.d_model)
        start = 0
        while start < batch:
            width = length if lengths is None else int(lengths[start])
            end = min(batch, start + max(1, at_once // max(1, width)))
            part_lengths = None if lengths is None else lengths[start:end]
            if part_lengths is not None:
                # No wider than its own longest row: of sorted rows little is padding.
                width = int(part_lengths.max())
            hidden[start:end, :width] = self._hidden_states(input_ids[start:end, :width], part_lengths, None, tap)
            start = end
        return hidden

    def _hidden_states(
        self, input_ids: Tensor, lengths: Tensor | None, cache: Cache | None, tap: ModelTap | None
    ) -> Tensor:
        residual: Tensor = self.embedding(input_ids)
        for index, layer in enumerate(self._layers()):
            layer_cache: LayerCache | None = None if cache is None else cache.layers[index]
            layer_tap = None if tap is None else _at_layer(tap, index)
            residual.add_(layer.mixer(layer.norm(residual), lengths, layer_cache, layer_tap))
        hidden: Tensor = self.norm_f(residual)
        if tap is not None:
            tap(len(self.layers), {"lm_head:input": hidden.shape[-1]}, hidden, lengths)
        return hidden

    @torch.no_grad()
    def head(self, hidden: Tensor) -> Tensor:
        """Logits float32 [..., V] of hidden states [..., D]."""
        logits: Tensor = self.lm_head(hidden)
        return logits

    def forward(self, input_ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits float32 [Bt, L, V]."""
        return self.head(self.hidden_states(input_ids, lengths))

    def new_cache(self, batch_size: int) -> Cache:
        """The memory before the first token; it takes its batch size from the first call that fills it."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        return Cache.empty(len(self.layers))

    def prefill(self, input_ids: Tensor, lengths: Tensor | None, cache: Cache) -> Tensor:
        """Read prompts [Bt, L] into the cache; logits of each row's last real token, float32 [Bt, V]."""
        hidden = self.hidden_states(input_ids, lengths, cache=cache)
        if lengths is None:
            return self.head(hidden[:, -1])
        rows = torch.arange(len(hidden), device=hidden.device)
        return self.head(hidden[rows, lengths - 1])

    def step(self, input_ids: Tensor, cache: Cache) -> Tensor:
        """One more token for each row, int64 [Bt]; logits float32 [Bt, V]."""
        return self.head(self.hidden_states(input_ids[:, None], cache=cache)[:, 0])


def embedding_rows(embedding: nn.Module) -> int:
    """V of an embedding of either form.

    Raises:
        TypeError: it is none.
    """
    if isinstance(embedding, QEmbedding):
        return embedding.shape[0]
    if isinstance(embedding, Embedding):
        return len(embedding.weight)
    raise TypeError(f"a {type(embedding).__name__} is no embedding")


def _at_layer(tap: ModelTap, index: int) -> Tap:
    def at_layer(columns: Mapping[str, int], values: Tensor, counts: Tensor | None) -> None:
        tap(index, columns, values, counts)

    return at_layer


__all__ = ["TOKENS_AT_ONCE", "Layer", "MambaLM", "ModelTap"]
