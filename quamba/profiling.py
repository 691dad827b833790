"""How long a model takes to read a prompt and to write: wall-clock times, with nothing left to do on the device.

ttft    time to first token: a batch of prompts is read, and its next tokens are chosen
tpot    time per output token: one more token of each row, a mean over a text
ttlt    time to last token: prompts read and all tokens written
"""

import statistics
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quamba.decoding.capture import CapturedPrefill, CapturedStep
from quamba.decoding.choice import decoder_of
from quamba.nn.model import MambaLM

MEASUREMENTS = ("ttft", "tpot", "ttlt")
_WARM_UP = 2


@dataclass(frozen=True, slots=True)
class Workload:
    """What is measured.

    Attributes:
        batch_size: rows side by side.
        prompt_len: tokens of each prompt.
        gen_len: tokens to write for each.
        repeats: how often, beside two times that do not count.
        cache_graph: replay CUDA graphs where the device has them.
        seed: of the prompts' random tokens.
    """

    batch_size: int = 1
    prompt_len: int = 512
    gen_len: int = 64
    repeats: int = 10
    cache_graph: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """One measurement.

    Attributes:
        name: one of `MEASUREMENTS`.
        times_ms: of each repetition.
    """

    name: str
    times_ms: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        """The middle one."""
        return statistics.median(self.times_ms)


def measure(model: MambaLM, work: Workload, wanted: Collection[str]) -> Iterator[Measured]:
    """Time a model.

    Args:
        model: float or quantized, on its device.
        work: what to time.
        wanted: of `MEASUREMENTS`.

    Yields:
        Each as it is known, in their order.
    """
    generator = torch.Generator().manual_seed(work.seed)
    shape = (work.batch_size, work.prompt_len)
    ids = torch.randint(0, model.config.vocab_size, shape, generator=generator).to(model.device)
    run = _Graphs(model, ids) if work.cache_graph and model.device.type == "cuda" else _Plain(model, ids)
    for name in MEASUREMENTS:
        if name not in wanted:
            continue
        timed = {"ttft": run.read, "tpot": lambda: run.write(work.gen_len), "ttlt": lambda: run.all(work.gen_len)}[name]
        if name == "tpot":
            run.read()
        share = work.gen_len if name == "tpot" else 1
        yield Measured(name, tuple(ms / share for ms in _times_ms(timed, work.repeats, model.device)))


def state_bytes(model: MambaLM) -> int:
    """What is remembered of one text, whatever its length: convolutions' inputs and states."""
    cache = model.new_cache(1)
    model.prefill(torch.zeros(1, 2, dtype=torch.int64, device=model.device), None, cache)
    total = 0
    for layer in cache.layers:
        state = getattr(layer.state, "codes", layer.state)
        total += sum(tensor.nbytes for tensor in (layer.conv, state) if isinstance(tensor, Tensor))
    return total


def _times_ms(run: Callable[[], Any], repeats: int, device: torch.device) -> list[float]:
    times = []
    for _ in range(_WARM_UP + repeats):
        _wait(device)
        start = time.perf_counter()
        run()
        _wait(device)
        times.append((time.perf_counter() - start) * 1e3)
    return times[_WARM_UP:]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _Plain:
    """As generation runs it: fused kernels where they fit the model, else the model itself."""

    def __init__(self, model: MambaLM, ids: Tensor) -> None:
        self._decoder, self._ids = decoder_of(model), ids
        self._cache: Any = None
        self._next = ids[:, -1]

    def read(self) -> None:
        self._cache = self._decoder.new_cache(len(self._ids))
        self._next = self._decoder.prefill(self._ids, None, self._cache).argmax(-1)

    def write(self, count: int) -> None:
        for _ in range(count):
            self._next = self._decoder.step(self._next, self._cache).argmax(-1)

    def all(self, count: int) -> None:
        self.read()
        self.write(count - 1)


class _Graphs(_Plain):
    """Prompts from a graph too, and steps of any model."""

    def __init__(self, model: MambaLM, ids: Tensor) -> None:
        super().__init__(model, ids)
        self._prefill = CapturedPrefill(model, *ids.shape)
        self._own = CapturedStep(model, self._prefill(ids)[1], len(ids)) if self._decoder is model else None

    def read(self) -> None:
        logits, cache = self._prefill(self._ids)
        self._next = logits.argmax(-1)
        if self._own is None:
            self._cache = self._decoder.new_cache(len(self._ids))
            self._cache.cache = cache
        else:
            self._own.load(cache)

    def write(self, count: int) -> None:
        if self._own is None:
            super().write(count)
            return
        for _ in range(count):
            self._next = self._own.step(self._next).argmax(-1)


__all__ = ["MEASUREMENTS", "Measured", "Workload", "measure", "state_bytes"]
