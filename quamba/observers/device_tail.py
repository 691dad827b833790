"""The order statistics and the tail of one observer in a sweep on a device; see `quamba.observers.device_sweep`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from quamba.kernels.triton_extremes import extremes
from quamba.kernels.triton_gather_tail import gather_tail
from quamba.kernels.triton_select import select, threshold
from quamba.observers.documents import Documents, stacks_of
from quamba.observers.observer import Observer
from quamba.observers.tail import Rank, largest, share_of
from quamba.observers.tail_plan import TailPlan

# Room for a tail, for each element that it is to have: later documents may have more than the first.
_ROOM = 4


def order_statistics(plan: TailPlan, x: Tensor, counts: Tensor | None, out: Tensor, failed: Tensor) -> None:
    """Find a plan's ranks once the maxima of its blocks are known.

    Args:
        plan: with `maxima` of these documents.
        x: float32 [Bt, T, W].
        counts: int64 [Bt], how many of each row's T entries are real; None: all.
        out: float32 [Bt, A, 2], written: each statistic, and the next larger one.
        failed: int32 [1], set to 1 where the plan's room does not suffice.
    """
    threshold(plan.maxima.flatten(1), plan.tails, plan.least, plan.sizes)
    gather_tail(x, counts, plan.least, plan.sizes, plan.found)
    select(plan.found, plan.sizes, plan.tails, out, failed)


class DeviceQuantiles:
    """The quantiles of each document.

    Attributes:
        found: float32 [documents, A, 2], the order statistics on both sides of each.
    """

    def __init__(self, observer: Observer, columns: tuple[int, int], documents: int, device: torch.device) -> None:
        self.observer, self.columns, self.alphas = observer, columns, observer.alphas
        self.found = torch.zeros(documents, len(self.alphas), 2, device=device)
        self._weights: list[Tensor] = []
        self._single: list[Tensor] = []
        self._done = 0

    def ranks_of(self, n: int) -> list[Rank]:
        """Of a document of n elements."""
        return [Rank.of(alpha, n) for alpha in self.alphas]

    def update(self, plan: TailPlan, x: Tensor, counts: Tensor | None, failed: Tensor) -> None:
        """Of documents whose blocks' maxima are in the plan; x is the observer's columns."""
        order_statistics(plan, x, counts, self._place(len(x)), failed)
        self._weights.append(plan.weights)
        self._single.append(plan.single)

    def update_sorted(self, x: Tensor, lengths: Sequence[int]) -> None:
        """Where tails are a large share of the documents."""
        for stack in stacks_of(x, lengths):
            d, tokens, width = stack.shape
            ranks = self.ranks_of(tokens * width)
            self._place(d).copy_(self.statistics_of(Documents.of(stack)))
            self._weights.append(torch.tensor([[rank.weight for rank in ranks]], dtype=torch.float32).expand(d, -1))
            self._single.append(torch.tensor([[rank.tail < 2 for rank in ranks]]).expand(d, -1))

    def statistics_of(self, documents: Documents) -> Tensor:
        """By sorting: float32 [d, A, 2]."""
        _, tokens, width = documents.shape
        tails = [rank.tail for rank in self.ranks_of(tokens * width)]
        top = largest(documents, tails[0])
        return torch.stack([top[:, [tail - 1, max(0, tail - 2)]] for tail in tails], dim=1)

    def _place(self, documents: int) -> Tensor:
        self._done += documents
        return self.found[self._done - documents : self._done]

    def finish(self, found: Tensor) -> None:
        """Hand the quantiles to the observer; `found` is on the host."""
        low, high = found[: self._done].unbind(2)
        values = torch.where(torch.cat(self._single), low, torch.lerp(low, high, torch.cat(self._weights)))
        for a, alpha in enumerate(self.alphas):
            self.observer.set_quantiles(alpha, values[:, a])


class DeviceTail:
    """What is counted as clipped: the elements of the stream above a share of the first document's.

    Attributes:
        sizes: int64 [1], how many there are.
        floor: float32 [1], what they are above.
        room: how many are kept.
    """

    def __init__(self, observer: Observer, columns: tuple[int, int], device: torch.device) -> None:
        self._observer, self.columns = observer, columns
        tail = observer.tail_of(0, columns[1])
        self._tail, self._share = tail, tail.share or 0.0
        self.room = _ROOM * tail.size
        self.sizes = torch.zeros(1, dtype=torch.int64, device=device)
        self.floor = torch.zeros(1, device=device)
        self._found = torch.empty(1, self.room, device=device)
        self._begun = False

    def update(self, x: Tensor, counts: Tensor | None, lengths: Sequence[int], failed: Tensor) -> None:
        """Look at a batch once; x is the observer's columns."""
        if not self._begun:
            self._begin(x[:1, : lengths[0]], failed)
        gather_tail(x, counts, self.floor, self.sizes, self._found, together=True)

    def _begin(self, first: Tensor, failed: Tensor) -> None:
        """The floor: of the first document alone, so that it does not depend on how documents are batched."""
        self._begun = True
        _, tokens, width = first.shape
        count = share_of(self._share, tokens * width)
        rank = Rank(lo=tokens * width - count, weight=0.0, tail=count)
        plan = TailPlan.of([tokens], tokens, (0, width), lambda _: [rank], first.device)
        if plan is None:
            self.floor.copy_(largest(Documents.of(first), count)[0, -1:])
            return
        low, high = (torch.full((width,), value, device=first.device) for value in (torch.inf, -torch.inf))
        extremes(first, None, low, high, maxima=plan.maxima, columns=(0, width), fold=plan.fold)
        out = torch.empty(1, 1, 2, device=first.device)
        order_statistics(plan, first, None, out, failed)
        self.floor.copy_(out[0, 0, :1])

    def finish(self, size: int, floor: float) -> None:
        """Hand what was found to the observer's tail, in an order that is the same in every run."""
        self._tail.load(self._found[0, : min(size, self.room)].sort(descending=True).values, floor)
        self._found = self._found[:, :0]


__all__ = ["DeviceQuantiles", "DeviceTail", "order_statistics"]
