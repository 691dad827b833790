"""What the blocks compute with: the one place that chooses an implementation for the device of the tensors.

Elsewhere than on CUDA devices it is the plain PyTorch of this package, which defines the results. On them it is
mamba-ssm's and causal-conv1d's kernels, a kernel of this package for Mamba-1's scan over many tokens, and plain PyTorch
for what these cannot do, or where they are not installed.
(`quamba.kernels.int_matmul` needs nothing that torch does not have.)
"""

import functools
import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from quamba.kernels import causal_conv1d as plain_conv1d
from quamba.kernels import chunk_scan as plain_chunk_scan
from quamba.kernels import selective_scan as plain_selective_scan
from quamba.kernels.fused_chunk_scan import FusedChunkScan
from quamba.kernels.fused_chunk_states import load_states
from quamba.kernels.fused_conv1d import FusedConv1d
from quamba.kernels.fused_selective_scan import FusedSelectiveScan
from quamba.kernels.packages import load_functions
from quamba.kernels.selective_scan import ScanResult

# Copies from memory that a kernel does not wait for begin here.
_LEAST_CAPABILITY = (8, 0)

_log = logging.getLogger(__name__)


class Convolution(Protocol):
    """As `quamba.kernels.causal_conv1d.causal_conv1d`."""

    def __call__(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, context: Tensor | None = None, *, silu: bool = False
    ) -> Tensor:
        """[Bt, L, C] to [Bt, L, C]."""
        ...


class Scan(Protocol):
    """As `quamba.kernels.selective_scan.selective_scan` or `quamba.kernels.chunk_scan.chunk_scan`."""

    def __call__(
        self,
        x: Tensor,
        dt: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor,
        *,
        state: Tensor | None = None,
        stride: int | None = None,
    ) -> ScanResult:
        """Run the recurrence over L tokens."""
        ...


@dataclass(frozen=True, slots=True)
class Implementations:
    """What runs on one type of device.

    Attributes:
        causal_conv1d: the convolution before the scan.
        selective_scan: Mamba-1's recurrence.
        chunk_scan: Mamba-2's.
    """

    causal_conv1d: Convolution
    selective_scan: Scan
    chunk_scan: Scan


PLAIN = Implementations(plain_conv1d.causal_conv1d, plain_selective_scan.selective_scan, plain_chunk_scan.chunk_scan)


@functools.cache
def implementations(device_type: str) -> Implementations:
    """What runs on a type of device; packages for it are imported, or found missing, at the first question.

    Args:
        device_type: of a torch.device: "cpu", "cuda".
    """
    if device_type != "cuda":
        return PLAIN
    found, chosen = load_functions(), PLAIN
    if "causal-conv1d" in found:
        prefill, update = found["causal-conv1d"]
        chosen = replace(chosen, causal_conv1d=FusedConv1d(prefill, update))
    if "mamba-ssm" in found:
        selective, step, chunked = found["mamba-ssm"]
        chosen = replace(
            chosen,
            selective_scan=FusedSelectiveScan(selective, step),
            chunk_scan=FusedChunkScan(chunked, step, load_states()),
        )
    return chosen


@functools.cache
def own_kernel(name: str, device_type: str) -> Any:
    """A module of this package with a kernel in Triton; None: it does not run on this type of device.

    Whether it gives there what plain PyTorch gives is tried once; where it does not, this is said in a warning.

    Args:
        name: of the module in `quamba.kernels`.
        device_type: of a torch.device: "cpu", "cuda".
    """
    if device_type != "cuda" or torch.cuda.get_device_capability() < _LEAST_CAPABILITY:
        return None
    try:
        module = importlib.import_module(f"quamba.kernels.{name}")
    except ImportError:
        # What other packages have, and plain PyTorch, do as well, slower.
        return None
    try:
        reason = None if module.agrees(torch.device(device_type)) else "its results are others"
    except Exception as error:  # noqa: BLE001  # Compilers and drivers raise what they like.
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if reason is None:
        return module
    _log.warning("the kernel %s is not used (%s): slower ones run in its place", name, reason)
    return None


_plain_alone: ContextVar[bool] = ContextVar("plain_alone", default=False)


@contextmanager
def plain_alone() -> Iterator[None]:
    """Within it packages' kernels rest, which for a few tokens take a minute to tune themselves."""
    token = _plain_alone.set(True)
    try:
        yield
    finally:
        _plain_alone.reset(token)


def _chosen(device_type: str) -> Implementations:
    return PLAIN if _plain_alone.get() else implementations(device_type)


def causal_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor | None, context: Tensor | None = None, *, silu: bool = False
) -> Tensor:
    """The depthwise causal convolution, with its SiLU or without.

    Args:
        x: float32 [Bt, L, C].
        weight: float32 [C, K].
        bias: float32 [C] or None.
        context: float32 [Bt, K - 1, C], the inputs before the first; None for zeros.
        silu: apply it.

    Returns:
        float32 [Bt, L, C].
    """
    return _chosen(x.device.type).causal_conv1d(x, weight, bias, context, silu=silu)


def selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    *,
    state: Tensor | None = None,
    stride: int | None = None,
) -> ScanResult:
    """The Mamba-1 recurrence: arguments and result as `quamba.kernels.selective_scan.selective_scan`."""
    own = own_kernel("triton_float_scan", x.device.type)
    if own is not None and x.shape[1] > 1 and own.fits(x, A):
        result: ScanResult = own.float_scan(x, dt, A, B, C, D, state=state, stride=stride)
        return result
    return _chosen(x.device.type).selective_scan(x, dt, A, B, C, D, state=state, stride=stride)


def chunk_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    *,
    state: Tensor | None = None,
    stride: int | None = None,
) -> ScanResult:
    """The Mamba-2 recurrence: arguments and result as `quamba.kernels.chunk_scan.chunk_scan`."""
    return _chosen(x.device.type).chunk_scan(x, dt, A, B, C, D, state=state, stride=stride)


__all__ = [
    "PLAIN",
    "Implementations",
    "causal_conv1d",
    "chunk_scan",
    "implementations",
    "own_kernel",
    "plain_alone",
    "selective_scan",
]
