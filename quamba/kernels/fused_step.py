"""One token of either recurrence by mamba-ssm's kernel for it (`selective_state_update`)."""

import functools

import torch
from torch import Tensor

from quamba.kernels.packages import Kernel
from quamba.kernels.selective_scan import ScanResult


def selective_step(
    update: Kernel, A: Tensor, D: Tensor, x: Tensor, dt: Tensor, B: Tensor, C: Tensor, state: Tensor
) -> ScanResult:
    """Mamba-1's; shapes as `quamba.kernels.selective_scan.selective_scan` with L = 1."""
    after = state.clone(memory_format=torch.contiguous_format)  # the kernel changes it in place
    bias = _zero(x.device).expand(D.shape)
    y: Tensor = update(after, x[:, 0], dt[:, 0], A, B[:, 0], C[:, 0], D=D, dt_bias=bias)
    return ScanResult(y[:, None], after, None)


def chunk_step(
    update: Kernel, A: Tensor, D: Tensor, x: Tensor, dt: Tensor, B: Tensor, C: Tensor, state: Tensor
) -> ScanResult:
    """Mamba-2's; shapes as `quamba.kernels.chunk_scan.chunk_scan` with L = 1.

    A head's dt and A reach the kernel as expanded tensors: where all their strides are 0 it reads one value a head.
    """
    nheads, headdim = x.shape[2:]
    after = state.clone(memory_format=torch.contiguous_format)
    y: Tensor = update(
        after,
        x[:, 0],
        dt[:, 0, :, None].expand(-1, -1, headdim),
        A[:, None, None].expand(state.shape[1:]),
        B[:, 0],
        C[:, 0],
        D=D if D.ndim == 2 else D[:, None].expand(nheads, headdim),
        dt_bias=_zero(x.device).expand(nheads, headdim),
    )
    return ScanResult(y[:, None], after, None)


@functools.cache
def _zero(device: torch.device) -> Tensor:
    """A float32 0 [1], made once: without a bias of dt the kernel's launcher fails."""
    return torch.zeros(1, device=device)


__all__ = ["chunk_step", "selective_step"]
