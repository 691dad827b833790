"""The states on the way that mamba-ssm's chunk scan makes and keeps to itself.

The function that returns them is none that mamba-ssm promises: whether it does what is wanted of it is found out by a
comparison, once for a model's sizes.
"""

import functools
import importlib
import logging
import warnings

import torch
from torch import Tensor

from quamba.kernels.chunk_scan import chunk_scan
from quamba.kernels.packages import Kernel
from quamba.kernels.selective_scan import ScanResult

_MODULE, _NAME = "mamba_ssm.ops.triton.ssd_combined", "_mamba_chunk_scan_combined_fwd"
# In parts of the largest value, as in `quamba.kernels.fused_chunk_scan`.
_TOLERANCE = 2e-5

_log = logging.getLogger(__name__)


def load_states() -> Kernel | None:
    """The function, where mamba-ssm has it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Kernel | None = getattr(importlib.import_module(_MODULE), _NAME, None)
    except ImportError:
        return None
    return found


def scan_with_states(
    kernel: Kernel,
    chunk: int,
    stride: int,
    A: Tensor,
    D: Tensor,
    x: Tensor,
    dt: Tensor,
    B: Tensor,
    C: Tensor,
    state: Tensor | None,
) -> ScanResult:
    """`quamba.kernels.chunk_scan.chunk_scan` with states on the way, from one pass.

    Args:
        kernel: see `load_states`; its fifth result are the states before each chunk, its sixth the last.
        chunk: tokens of a chunk.
        stride: tokens between states, a multiple of `chunk`.
        A, D, x, dt, B, C, state: as `chunk_scan` takes them.
    """
    y, _, _, _, before, last = kernel(x, dt, A, B, C, chunk, D=D, initial_states=state)
    every = stride // chunk
    return ScanResult(y, last, torch.cat([before[:, every::every], last[:, None]], dim=1))


@functools.cache
def has_states(kernel: Kernel, chunk: int, device: torch.device, sizes: tuple[int, int, int, int]) -> bool:
    """Whether the function gives what plain PyTorch gives, for random inputs of H heads of P with G groups of N states.

    Args:
        kernel: see `load_states`.
        chunk: tokens of a chunk.
        device: where it is to run.
        sizes: H, P, G, N.
    """
    heads, width, groups, n = sizes
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    batch, length = 2, 5 * chunk + 5
    x, dt, A = randn(batch, length, heads, width), randn(batch, length, heads).abs() / 10, -8 * randn(heads).abs()
    B, C, D = randn(batch, length, groups, n), randn(batch, length, groups, n), randn(heads)
    state = randn(batch, heads, width, n)
    expected = chunk_scan(x, dt, A, B, C, D, state=state, stride=2 * chunk)
    try:
        found = scan_with_states(kernel, chunk, 2 * chunk, A, D, x, dt, B, C, state)
        pairs = ((found.y, expected.y), (found.state, expected.state), (found.checkpoints, expected.checkpoints))
        error = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs if a is not None and b is not None)
    except Exception as failure:  # noqa: BLE001  # Whatever a function raises that is not what it was.
        _log.debug("mamba-ssm's %s is not used: %s", _NAME, failure)
        return False
    return error <= _TOLERANCE


__all__ = ["has_states", "load_states", "scan_with_states"]
