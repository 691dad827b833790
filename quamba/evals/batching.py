"""How many inputs go through a model at a time, and how what comes out returns without keeping a GPU waiting."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Padded tokens of one forward pass on a GPU: its arithmetic weighs more than the launches of any model from here on.
TOKENS_ON_CUDA = 32768
# Of the first pass, in which the memory that a token takes is seen.
_FIRST_TOKENS = 4096
# What passes may take of the memory that is free.
_SHARE = 0.5


class Batching:
    """Rows of the next forward pass.

    Without a number from the user it is one row on a CPU, whose work is cut to the size of its caches in any case. On
    a GPU it is as many as make `TOKENS_ON_CUDA`, fewer where they would not fit into memory: a first, smaller pass
    shows what a token takes, whatever kernels run.

    Args:
        device: of the model.
        batch_size: the user's number; None: as above.
    """

    def __init__(self, device: torch.device, batch_size: int | None) -> None:
        self._device = device
        self._batch_size = 1 if batch_size is None and device.type != "cuda" else batch_size
        self._tokens = _FIRST_TOKENS
        self._seen = False

    def rows(self, length: int) -> int:
        """How many rows of at most `length` tokens, at least one."""
        return self._batch_size if self._batch_size is not None else max(1, self._tokens // max(1, length))

    @contextmanager
    def watched(self, tokens: int) -> Iterator[None]:
        """Runs a pass of so many padded tokens; the first one decides how large the others are."""
        if self._batch_size is not None or self._seen:
            yield
            return
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        yield
        taken = max(1, torch.cuda.max_memory_allocated(self._device) - before)
        free, _ = torch.cuda.mem_get_info(self._device)
        # What torch has in store is free too.
        free += torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        self._tokens = tokens_that_fit(taken / max(1, tokens), free)
        self._seen = True


def tokens_that_fit(bytes_per_token: float, free_bytes: int) -> int:
    """Tokens of a pass: at most `TOKENS_ON_CUDA`, halved until they take no more than half of what is free."""
    tokens = TOKENS_ON_CUDA
    while tokens > 1 and tokens * bytes_per_token > _SHARE * free_bytes:
        tokens //= 2
    return tokens


def to_device(values: NDArray[np.int64], device: torch.device) -> Tensor:
    """An array on a device; on a GPU it is on its way while the host goes on."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class Fetched:
    """A tensor on its way to the host.

    Asked for right after it was computed: later work of the device is not waited for when it is read.

    Args:
        values: on any device.
    """

    def __init__(self, values: Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        self._values = values
        if values.device.type == "cuda":
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch gives it no types
            self._arrived.record(torch.cuda.current_stream(values.device))

    def numpy(self) -> NDArray[np.float32]:
        """The values, waited for."""
        if self._arrived is not None:
            self._arrived.synchronize()
        found: NDArray[np.float32] = self._values.numpy()
        return found


__all__ = ["TOKENS_ON_CUDA", "Batching", "Fetched", "to_device", "tokens_that_fit"]
