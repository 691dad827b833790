"""Watching on a CUDA device: a few launches for each tensor, nothing brought to the host before the end of the sweep.

Results are those of `Station` bit for bit; where a launch's buffers did not suffice, or a number is not finite, the
sweep says so at its end, and what was watched there is to be watched anew by a `Station`.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence

import torch
from torch import Tensor

from quamba.kernels.triton_extremes import extremes
from quamba.kernels.triton_gather_tail import gather_tail
from quamba.kernels.triton_select import select, threshold
from quamba.observers.documents import Documents, stacks_of
from quamba.observers.observer import Observer
from quamba.observers.tail import Rank, largest
from quamba.observers.tail_plan import TailPlan
from quamba.reports import ValueRange

# Plans that are kept: of the tensors of one layer; all layers share them.
_PLANS = 8


class DeviceSweep:
    """What is watched in one sweep.

    Args:
        documents: how many it brings.
    """

    def __init__(self, documents: int) -> None:
        self._documents = documents
        self._stations: dict[Hashable, _Station] = {}
        self._plans = _Plans()

    def watch(
        self,
        key: Hashable,
        observers: Callable[[], Mapping[Observer, int]],
        values: Tensor,
        counts: Tensor | None,
        lengths: Sequence[int],
    ) -> None:
        """Look at a batch of a tensor once.

        Args:
            key: of the tensor.
            observers: gives those of its parts, in the order of their columns, and how many columns each has.
            values: float32 [Bt, T, ...], the last axes as wide as all parts together.
            counts: int64 [Bt], on the device, how many of each row's T entries are real; None: all.
            lengths: the same on the host, T for each where `counts` is None.
        """
        if key not in self._stations:
            self._stations[key] = _Station(observers(), self._documents, values.device, self._plans)
        self._stations[key].update(values.flatten(2), counts, tuple(lengths))

    def finish(self) -> list[Hashable]:
        """Give the observers what was found; the keys of tensors that must be watched anew."""
        stations = list(self._stations.values())
        if not stations:
            return []
        low, high = (torch.cat(parts).cpu() for parts in zip(*((s.low, s.high) for s in stations), strict=True))
        marks = torch.cat([s.failed for s in stations]).tolist()
        quantiles = [part.found.flatten() for s in stations for part in s.parts]
        found = torch.cat(quantiles).cpu() if quantiles else torch.empty(0)
        start, taken, failed = 0, 0, []
        for (key, station), mark in zip(self._stations.items(), marks, strict=True):
            for observer, width in station.observers.items():
                columns = slice(start, start + width)
                observer.set_before(ValueRange(min=float(low[columns].min()), max=float(high[columns].max())))
                start += width
            for part in station.parts:
                part.finish(found[taken : taken + part.found.numel()].view(part.found.shape))
                taken += part.found.numel()
            width = len(station.low)
            if mark or not bool((low[start - width : start].isfinite() & high[start - width : start].isfinite()).all()):
                failed.append(key)
        return failed


class _Plans:
    """The plans of the last batch's tensors."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], TailPlan | None] = {}

    def plan(self, lengths: tuple[int, ...], tokens: int, part: "_Quantiles", device: torch.device) -> TailPlan | None:
        key = lengths, tokens, part.columns, part.alphas
        if key not in self._known:
            if len(self._known) >= _PLANS:
                self._known.clear()
            self._known[key] = TailPlan.of(lengths, tokens, part.columns, part.alphas, device)
        return self._known[key]


class _Quantiles:
    """The order statistics of the documents of one observer.

    Attributes:
        found: float32 [documents, A, 2].
    """

    def __init__(self, observer: Observer, columns: tuple[int, int], documents: int, device: torch.device) -> None:
        self.observer, self.columns, self.alphas = observer, columns, observer.alphas
        self.found = torch.zeros(documents, len(self.alphas), 2, device=device)
        self._weights: list[Tensor] = []
        self._single: list[Tensor] = []
        self._done = 0

    def place(self, documents: int) -> Tensor:
        """Where the statistics of the next documents go."""
        self._done += documents
        return self.found[self._done - documents : self._done]

    def note(self, weights: Tensor, single: Tensor) -> None:
        """Where quantiles lie between them, [d, A]."""
        self._weights.append(weights)
        self._single.append(single)

    def finish(self, found: Tensor) -> None:
        """Hand the quantiles to the observer; `found` is on the host."""
        low, high = found[: self._done].unbind(2)
        values = torch.where(torch.cat(self._single), low, torch.lerp(low, high, torch.cat(self._weights)))
        for a, alpha in enumerate(self.alphas):
            self.observer.set_quantiles(alpha, values[:, a])


class _Station:
    """One watched tensor."""

    def __init__(self, observers: Mapping[Observer, int], documents: int, device: torch.device, plans: _Plans) -> None:
        self.observers = dict(observers)
        self._plans = plans
        width = sum(self.observers.values())
        self.low = torch.full((width,), torch.inf, device=device)
        self.high = torch.full((width,), -torch.inf, device=device)
        self.failed = torch.zeros(1, dtype=torch.int32, device=device)
        self.parts: list[_Quantiles] = []
        self._rest: list[tuple[Observer, int, int]] = []
        start = 0
        for observer, part in self.observers.items():
            observer.set_extremes(self.low.narrow(0, start, part), self.high.narrow(0, start, part))
            if observer.alphas:
                self.parts.append(_Quantiles(observer, (start, part), documents, device))
            if observer.needs_rest:
                self._rest.append((observer, start, part))
            start += part

    def update(self, values: Tensor, counts: Tensor | None, lengths: tuple[int, ...]) -> None:
        x = values if values.stride(2) == 1 else values.contiguous()
        entries = sum(lengths)
        for observer, width in self.observers.items():
            observer.count += entries * width
        planned = [(part, self._plans.plan(lengths, x.shape[1], part, x.device)) for part in self.parts]
        if not any(plan for _, plan in planned):
            extremes(x, counts, self.low, self.high)
        whole = True
        for part, plan in planned:
            if plan is None:
                _sorted(part, x, lengths)
                continue
            # The first launch with blocks takes everyone's extremes; a further one takes some again.
            first, width = part.columns
            if whole:
                extremes(x, counts, self.low, self.high, maxima=plan.maxima, columns=part.columns, fold=plan.fold)
            columns = x.narrow(2, first, width)
            if not whole:
                low, high = (t.narrow(0, first, width) for t in (self.low, self.high))
                extremes(columns, counts, low, high, maxima=plan.maxima, columns=(0, width), fold=plan.fold)
            whole = False
            threshold(plan.maxima.flatten(1), plan.tails, plan.least, plan.sizes)
            gather_tail(columns, counts, plan.least, plan.sizes, plan.found)
            select(plan.found, plan.sizes, plan.tails, part.place(len(lengths)), self.failed)
            part.note(plan.weights, plan.single)
        if self._rest:
            for stack in stacks_of(x, None if counts is None else lengths):
                documents = Documents.of(stack)
                for observer, start, width in self._rest:
                    observer.update_rest(documents.columns(start, width))


def _sorted(part: _Quantiles, x: Tensor, lengths: tuple[int, ...]) -> None:
    """Order statistics of tails that are a large share of the documents."""
    first, width = part.columns
    for stack in stacks_of(x, lengths):
        documents = Documents.of(stack.narrow(2, first, width))
        d, tokens, _ = documents.shape
        ranks = [Rank.of(alpha, tokens * width) for alpha in part.alphas]
        top = largest(documents, ranks[0].tail)
        place = part.place(d)
        for a, rank in enumerate(ranks):
            place[:, a, 0], place[:, a, 1] = top[:, rank.tail - 1], top[:, max(0, rank.tail - 2)]
        part.note(
            torch.tensor([[rank.weight for rank in ranks]], dtype=torch.float32).expand(d, -1),
            torch.tensor([[rank.tail < 2 for rank in ranks]]).expand(d, -1),
        )


__all__ = ["DeviceSweep"]
