"""Calibration documents side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quamba.errors import DataError

DOCUMENTS_ON_CUDA = 8


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


def merge_batches(batches: Sequence[TokenBatch], tokens: int) -> list[TokenBatch]:
    """The same documents in the same order, as many batches in one as have up to so many tokens with their padding."""
    merged: list[TokenBatch] = []
    waiting: list[TokenBatch] = []
    for batch in batches:
        rows = sum(len(part.lengths) for part in [*waiting, batch])
        width = max(part.input_ids.shape[1] for part in [*waiting, batch])
        if waiting and rows * width > tokens:
            merged.append(_side_by_side(waiting))
            waiting = []
        waiting.append(batch)
    return [*merged, _side_by_side(waiting)] if waiting else merged


def _side_by_side(batches: Sequence[TokenBatch]) -> TokenBatch:
    if len(batches) == 1:
        return batches[0]
    width = max(batch.input_ids.shape[1] for batch in batches)
    input_ids = [torch.nn.functional.pad(batch.input_ids, (0, width - batch.input_ids.shape[1])) for batch in batches]
    return TokenBatch(torch.cat(input_ids), torch.cat([batch.lengths for batch in batches]))


def documents_at_once(device: torch.device, batch_size: int | None) -> int:
    """The user's number; without one 1, and `DOCUMENTS_ON_CUDA` on a GPU, whose arithmetic few tokens leave idle."""
    return batch_size or (DOCUMENTS_ON_CUDA if device.type == "cuda" else 1)


__all__ = ["DOCUMENTS_ON_CUDA", "TokenBatch", "batch_documents", "documents_at_once", "merge_batches"]
