"""Watching on a CUDA device: a few launches for each tensor, nothing brought to the host before the end of the sweep.

Results are those of `Station` bit for bit; where a launch's buffers did not suffice, or a number is not finite, the
sweep says so at its end, and what was watched there is to be watched anew by a `Station`.
"""

import logging
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from quamba.kernels.triton_extremes import extremes
from quamba.observers.device_tail import DeviceQuantiles, DeviceTail
from quamba.observers.documents import Documents, stacks_of
from quamba.observers.observer import Observer
from quamba.observers.tail_plan import TailPlan
from quamba.reports import ValueRange

_log = logging.getLogger(__name__)
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
        # Why kernels do not run, and what was not watched since.
        self._failure: str | None = None
        self._missed: set[Hashable] = set()
        # Of each kind of tensor the first batch is looked at by plain PyTorch too.
        self._checked: set[tuple[object, ...]] = set()
        self._wrong: list[Tensor] = []

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
        if self._failure is not None:
            self._missed.add(key)
            return
        new = key not in self._stations
        try:
            if new:
                self._stations[key] = _Station(observers(), self._documents, values.device, self._plans)
            self._stations[key].update(values.flatten(2), counts, tuple(lengths))
        except Exception as error:  # noqa: BLE001  # Compilers and drivers raise what they like.
            self._failure = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            self._missed.add(key)
            return
        kind = values.shape[2:], tuple(part.alphas for part in self._stations[key].quantiles)
        if new and kind not in self._checked:
            self._checked.add(kind)
            self._wrong.append(self._stations[key].disagreement(values.flatten(2), lengths))

    def finish(self) -> list[Hashable]:
        """Give the observers what was found; the keys of tensors that must be watched anew."""
        stations = list(self._stations.values())
        if self._failure is None and self._wrong and bool(torch.stack(self._wrong).any()):
            self._failure = "they find other numbers"
        if self._failure is not None:
            _log.warning("kernels do not watch activations (%s): plain PyTorch does, slower", self._failure)
            return [*self._stations, *(self._missed - self._stations.keys())]
        if not stations:
            return []
        lows = _reduced([view for s in stations for view in s.split(s.low)], torch.amin)
        highs = _reduced([view for s in stations for view in s.split(s.high)], torch.amax)
        marks = torch.cat([s.failed for s in stations]).tolist()
        found = _on_host([part.found for s in stations for part in s.quantiles])
        sizes = _on_host([tail.sizes for s in stations for tail in s.tails])
        floors = _on_host([tail.floor for s in stations for tail in s.tails])
        failed = []
        for (key, station), mark in zip(self._stations.items(), marks, strict=True):
            finite = True
            for observer in station.observers:
                before = ValueRange(min=next(lows), max=next(highs))
                observer.set_before(before)
                finite &= math.isfinite(before.min) and math.isfinite(before.max)
            for part in station.quantiles:
                part.finish(next(found))
            within = True
            for tail in station.tails:
                size = int(next(sizes))
                tail.finish(size, float(next(floors)))
                within &= size <= tail.room
            if mark or not finite or not within:
                failed.append(key)
        return failed


def _on_host(tensors: Sequence[Tensor]) -> Iterator[Tensor]:
    """Tensors of one type, brought to the host together."""
    if tensors:
        together = torch.cat([tensor.flatten() for tensor in tensors]).cpu()
        parts = together.split([tensor.numel() for tensor in tensors])  # type: ignore[no-untyped-call]  # of torch
        yield from (part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True))


def _reduced(tensors: Sequence[Tensor], reduce: Callable[..., Tensor]) -> Iterator[float]:
    """One number for each tensor; those of a width are reduced together."""
    places: dict[int, list[int]] = {}
    for place, tensor in enumerate(tensors):
        places.setdefault(tensor.numel(), []).append(place)
    values = [reduce(torch.stack([tensors[place] for place in some]), dim=1) for some in places.values()]
    found = zip((place for some in places.values() for place in some), torch.cat(values).tolist(), strict=True)
    return (value for _, value in sorted(found))


class _Plans:
    """The plans of the last batch's tensors."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], TailPlan | None] = {}

    def plan(
        self, lengths: tuple[int, ...], tokens: int, part: DeviceQuantiles, device: torch.device
    ) -> TailPlan | None:
        key = lengths, tokens, part.columns, part.alphas
        if key not in self._known:
            if len(self._known) >= _PLANS:
                self._known.clear()
            self._known[key] = TailPlan.of(lengths, tokens, part.columns, part.ranks_of, device)
        return self._known[key]


class _Station:
    """One watched tensor."""

    def __init__(self, observers: Mapping[Observer, int], documents: int, device: torch.device, plans: _Plans) -> None:
        self.observers = dict(observers)
        self._plans = plans
        width = sum(self.observers.values())
        self.low = torch.full((width,), torch.inf, device=device)
        self.high = torch.full((width,), -torch.inf, device=device)
        self.failed = torch.zeros(1, dtype=torch.int32, device=device)
        self.quantiles: list[DeviceQuantiles] = []
        self.tails: list[DeviceTail] = []
        self._rest: list[tuple[Observer, int, int]] = []
        start = 0
        for (observer, part), low, high in zip(
            self.observers.items(), self.split(self.low), self.split(self.high), strict=True
        ):
            observer.set_extremes(low, high)
            if observer.alphas:
                self.quantiles.append(DeviceQuantiles(observer, (start, part), documents, device))
            if observer.counts_clipped:
                self.tails.append(DeviceTail(observer, (start, part), device))
            if observer.needs_rest:
                self._rest.append((observer, start, part))
            start += part

    def split(self, channels: Tensor) -> tuple[Tensor, ...]:
        """Views of the parts of a tensor of all channels."""
        parts: tuple[Tensor, ...] = torch.split(channels, list(self.observers.values()))
        return parts

    def disagreement(self, values: Tensor, lengths: Sequence[int]) -> Tensor:
        """Whether plain PyTorch finds others in the first batch, which alone was seen: bool, on the device.

        Looked at are the extremes of all channels, and the order statistics of the first document. What is not finite
        is no disagreement: it is found out at the end.
        """
        real = list(stacks_of(values, lengths))
        low = torch.stack([stack.amin(dim=(0, 1)) for stack in real]).amin(dim=0)
        high = torch.stack([stack.amax(dim=(0, 1)) for stack in real]).amax(dim=0)
        wrong = ((low != self.low) | (high != self.high)).any()
        for part in self.quantiles:
            first = Documents.of(values[:1, : lengths[0]].narrow(2, *part.columns))
            wrong = wrong | (part.statistics_of(first) != part.found[0]).any()
        return wrong & low.isfinite().all() & high.isfinite().all() & (self.failed == 0).all()

    def update(self, values: Tensor, counts: Tensor | None, lengths: tuple[int, ...]) -> None:
        x = values if values.stride(2) == 1 else values.contiguous()
        entries = sum(lengths)
        for observer, width in self.observers.items():
            observer.count += entries * width
        plans = [self._plans.plan(lengths, x.shape[1], part, x.device) for part in self.quantiles]
        whole = False
        for part, plan in zip(self.quantiles, plans, strict=True):
            first, width = part.columns
            columns = x.narrow(2, first, width)
            if plan is None:
                part.update_sorted(columns, lengths)
                continue
            if whole:
                # Its extremes are known already, and stay as they are.
                low, high = (t.narrow(0, first, width) for t in (self.low, self.high))
                extremes(columns, counts, low, high, maxima=plan.maxima, columns=(0, width), fold=plan.fold)
            else:
                extremes(x, counts, self.low, self.high, maxima=plan.maxima, columns=part.columns, fold=plan.fold)
                whole = True
            part.update(plan, columns, counts, self.failed)
        if not whole:
            extremes(x, counts, self.low, self.high)
        for tail in self.tails:
            tail.update(x.narrow(2, *tail.columns), counts, lengths, self.failed)
        if self._rest:
            for stack in stacks_of(x, None if counts is None else lengths):
                documents = Documents.of(stack)
                for observer, start, width in self._rest:
                    observer.update_rest(documents.columns(start, width), tail=not observer.counts_clipped)


__all__ = ["DeviceSweep"]
