"""How the order statistics of a batch's documents are found on a device: ranks, blocks and buffers, known beforehand.

The largest |x| of each small block of elements is known from the pass that takes the extremes. The tail-th largest of
these is a lower bound of the tail-th largest element, since that many blocks have an element as large. What reaches it
is gathered, a little more than the tail, and the ranks are found among that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quamba.kernels.triton_extremes import block_tokens
from quamba.observers.tail import Rank

# Blocks of a document for each element of the tail, at least; more do not bring the bound much nearer.
_LEAST_SHARE, _SHARE = 2, 8
_BLOCKS = 4096
_FOLD = 16
# Room for what is gathered, for each element of the tail and in any case.
_ROOM, _MORE_ROOM = 4, 1024


@dataclass(frozen=True, slots=True, eq=False)
class TailPlan:
    """For W channels of documents of given lengths.

    Attributes:
        fold: channels in a block.
        tails: int32 [Bt, A], on the device: how many of the largest elements each rank needs, most of them first.
        weights: float32 [Bt, A], on the host: where a quantile lies between its order statistics.
        single: bool [Bt, A], on the host: the rank is the last, and has no statistic after it.
        maxima: float32 [Bt, blocks of tokens, W / fold], a buffer.
        least: float32 [Bt], a buffer: the threshold of each document.
        sizes: int32 [Bt], a buffer: how much was gathered.
        found: float32 [Bt, room], a buffer.
    """

    fold: int
    tails: Tensor
    weights: Tensor
    single: Tensor
    maxima: Tensor
    least: Tensor
    sizes: Tensor
    found: Tensor

    @classmethod
    def of(
        cls,
        lengths: Sequence[int],
        tokens: int,
        columns: tuple[int, int],
        ranks_of: Callable[[int], Sequence[Rank]],
        device: torch.device,
    ) -> "TailPlan | None":
        """The plan for documents of these lengths in rows of so many tokens; None: the tail is too large a share.

        Args:
            lengths: at least 1 each.
            tokens: T of the tensor.
            columns: first and width of the channels.
            ranks_of: the A ranks that are wanted of a document of so many elements, the largest tail first.
            device: where the tensor is.
        """
        first, width = columns
        by_length = {n: ranks_of(n * width) for n in set(lengths)}
        ranks = [by_length[n] for n in lengths]
        most = max(row[0].tail for row in ranks)
        height = -(-tokens // block_tokens(tokens))
        if most * _LEAST_SHARE > height * width and max(lengths) * width > _BLOCKS:
            return None
        fold = 1
        while (
            fold < _FOLD
            and first % (2 * fold) == width % (2 * fold) == 0
            and height * width // (2 * fold) >= max(_BLOCKS, _SHARE * most)
        ):
            fold *= 2
        room = 1 << (min(max(lengths) * width, _ROOM * most + _MORE_ROOM) - 1).bit_length()
        rows = len(lengths)
        return cls(
            fold=fold,
            tails=torch.tensor([[rank.tail for rank in row] for row in ranks], dtype=torch.int32).to(device),
            weights=torch.tensor([[rank.weight for rank in row] for row in ranks], dtype=torch.float32),
            single=torch.tensor([[rank.tail < 2 for rank in row] for row in ranks]),
            maxima=torch.empty(rows, height, width // fold, device=device),
            least=torch.empty(rows, device=device),
            sizes=torch.empty(rows, dtype=torch.int32, device=device),
            found=torch.empty(rows, room, device=device),
        )


__all__ = ["TailPlan"]
