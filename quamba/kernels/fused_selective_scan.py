"""The Mamba-1 recurrence by mamba-ssm's kernels, for what they can do."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from quamba.kernels.fused_step import selective_step
from quamba.kernels.packages import Kernel
from quamba.kernels.pieces import MAX_ELEMENTS, MAX_GRID, in_rows, in_segments
from quamba.kernels.selective_scan import ScanResult, selective_scan

_MAX_STATES = 256
# The kernel keeps two numbers for each state every so many tokens.
_KERNEL_CHUNK = 2048
# See `_from_state`.
_INSTANT = 2.0**-60


@dataclass(frozen=True, slots=True)
class FusedSelectiveScan:
    """`quamba.kernels.selective_scan.selective_scan` in one launch for any number of tokens.

    Args:
        scan: `mamba_ssm.ops.selective_scan_interface.selective_scan_fn`.
        update: `mamba_ssm.ops.triton.selective_state_update.selective_state_update`, for one token.
    """

    scan: Kernel
    update: Kernel

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
        """Arguments and result as `selective_scan`, which runs where N > 256 or a row alone is too large."""
        _, length, channels = x.shape
        n = A.shape[1]
        tokens = n + (length if stride is None else min(stride, length))
        row = channels * max(tokens, 2 * n * -(-tokens // _KERNEL_CHUNK))
        rows = min(MAX_ELEMENTS // row, MAX_GRID)
        if n > _MAX_STATES or channels > MAX_GRID or rows < 1 or x.dtype != torch.float32:
            return selective_scan(x, dt, A, B, C, D, state=state, stride=stride)
        if length == 1 and state is not None and stride is None:
            return in_rows(partial(selective_step, self.update, A, D), rows, x, dt, B, C, state)
        scan = partial(in_rows, partial(_scan, self.scan, A, D), rows)
        return scan(x, dt, B, C, state) if stride is None else in_segments(scan, stride, x, dt, B, C, state)


def _scan(
    kernel: Kernel, A: Tensor, D: Tensor, x: Tensor, dt: Tensor, B: Tensor, C: Tensor, state: Tensor | None
) -> ScanResult:
    first = 0
    if state is not None:
        first = A.shape[1]
        x, dt, B, C = _from_state(x, dt, B, C, state)
    x, dt, B, C = (t.transpose(1, 2).contiguous() for t in (x, dt, B, C))  # tokens last
    y, last = kernel(x, dt, A, B, C, D, return_last_state=True)
    # The state is every other number of a larger tensor, which is not to live as long as it.
    return ScanResult(y[:, :, first:].transpose(1, 2).contiguous(), last.clone(), None)


def _from_state(x: Tensor, dt: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The inputs, with N tokens before them that make the state out of the zeros with which the kernel begins.

    Token j has dt = 2^-60, x = 2^60 h_j and as B the unit vector j: dt x B^T is column j of the state, exactly, as
    these are powers of two; and exp(dt A) is 1 in float32 for any |A| below 2^30.

    Args:
        x: [Bt, L, E].
        dt: [Bt, L, E].
        B: [Bt, L, N].
        C: [Bt, L, N].
        state: [Bt, E, N].
    """
    batch, channels, n = state.shape
    unit = torch.eye(n, dtype=B.dtype, device=B.device).expand(batch, n, n)
    return (
        torch.cat([state.transpose(1, 2) / _INSTANT, x], dim=1),
        torch.cat([dt.new_full((batch, n, channels), _INSTANT), dt], dim=1),
        torch.cat([unit, B], dim=1),
        torch.cat([C.new_zeros(batch, n, n), C], dim=1),
    )


__all__ = ["FusedSelectiveScan"]
