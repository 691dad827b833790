"""The Mamba-2 recurrence by mamba-ssm's kernels, for what they can do."""

import functools
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from quamba.kernels.chunk_scan import chunk_scan
from quamba.kernels.fused_chunk_states import has_states, scan_with_states
from quamba.kernels.fused_step import chunk_step
from quamba.kernels.packages import Kernel
from quamba.kernels.pieces import MAX_ELEMENTS, MAX_GRID, in_rows, in_segments
from quamba.kernels.selective_scan import ScanResult

# Tokens in a chunk. Exponents are differences of float32 sums over a chunk: in a short one they keep their digits.
CHUNK = 64
_MAX_STATES = 256
# Triton multiplies float32 matrices in TF32, with 10 bits of mantissa, unless this variable says otherwise while a
# kernel is compiled; kernels compiled before with another value are not taken for it. tf32x3 is three such products of
# the parts of a float32, nearly as precise as one in float32, and on the tensor cores.
_PRECISION_VARIABLE, _PRECISION = "TRITON_F32_DEFAULT", "tf32x3"
# In parts of the largest value. Float32 stays below a tenth of it, TF32 exceeds it ten times.
_TOLERANCE = 2e-5

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FusedChunkScan:
    """`quamba.kernels.chunk_scan.chunk_scan` in a few launches for any number of tokens.

    Args:
        scan: `mamba_ssm.ops.triton.ssd_combined.mamba_chunk_scan_combined`.
        update: `mamba_ssm.ops.triton.selective_state_update.selective_state_update`, for one token.
        states: what gives states on the way (`quamba.kernels.fused_chunk_states`); None: a scan for each.
    """

    scan: Kernel
    update: Kernel
    states: Kernel | None = None

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
        """Arguments and result as `chunk_scan`, which runs where N > 256 or a row alone is too large.

        It runs too where a comparison, made once for a model's sizes, finds the kernels less precise than float32.
        """
        _, length, nheads, headdim = x.shape
        groups, n = B.shape[2:]
        chunks, rows = _rows(x, B, C, length if stride is None else min(stride, length))
        if n > _MAX_STATES or max(nheads, groups * chunks) > MAX_GRID or rows < 1 or x.dtype != torch.float32:
            return chunk_scan(x, dt, A, B, C, D, state=state, stride=stride)
        if length == 1 and state is not None and stride is None:
            return in_rows(partial(chunk_step, self.update, A, D), rows, x, dt, B, C, state)
        if not _is_precise(self.scan, x.device, nheads, headdim, groups, n):
            return chunk_scan(x, dt, A, B, C, D, state=state, stride=stride)
        if stride is not None and self.states is not None and stride % CHUNK == 0:
            _, whole = _rows(x, B, C, length)
            if whole > 0 and _gives_states(self.states, x.device, nheads, headdim, groups, n):
                return in_rows(partial(_scan_with_states, self.states, stride, A, D), whole, x, dt, B, C, state)
        scan = partial(in_rows, partial(_scan, self.scan, A, D), rows)
        return scan(x, dt, B, C, state) if stride is None else in_segments(scan, stride, x, dt, B, C, state)


def _rows(x: Tensor, B: Tensor, C: Tensor, tokens: int) -> tuple[int, int]:
    """Chunks of so many tokens, and how many rows one launch takes: 0 where a row alone is too large."""
    _, _, nheads, headdim = x.shape
    groups, n = B.shape[2:]
    chunks = -(-tokens // CHUNK)
    row = max(x.stride(0), B.stride(0), C.stride(0), chunks * max(nheads * headdim * n, groups * CHUNK * CHUNK))
    return chunks, min(MAX_ELEMENTS // row, MAX_GRID // chunks)


def _scan_with_states(
    kernel: Kernel,
    stride: int,
    A: Tensor,
    D: Tensor,
    x: Tensor,
    dt: Tensor,
    B: Tensor,
    C: Tensor,
    state: Tensor | None,
) -> ScanResult:
    with torch.cuda.device_of(x), _precise_products():  # type: ignore[no-untyped-call]  # torch gives it no types
        return scan_with_states(kernel, CHUNK, stride, A, D, x, dt, B, C, state)


def _scan(
    kernel: Kernel, A: Tensor, D: Tensor, x: Tensor, dt: Tensor, B: Tensor, C: Tensor, state: Tensor | None
) -> ScanResult:
    # Not all of the kernels' launchers change to the device of the tensors themselves.
    with torch.cuda.device_of(x), _precise_products():  # type: ignore[no-untyped-call]  # torch gives it no types
        y, last = kernel(x, dt, A, B, C, chunk_size=CHUNK, D=D, initial_states=state, return_final_states=True)
    return ScanResult(y, last, None)


def _gives_states(kernel: Kernel, device: torch.device, nheads: int, headdim: int, groups: int, n: int) -> bool:
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext(), _precise_products():
        return has_states(kernel, CHUNK, device, (nheads, headdim, groups, n))


@contextmanager
def _precise_products() -> Iterator[None]:
    """Have Triton compile float32 products as such; whoever has set the variable knows better."""
    chosen = _PRECISION_VARIABLE in os.environ
    os.environ.setdefault(_PRECISION_VARIABLE, _PRECISION)
    try:
        yield
    finally:
        if not chosen:
            del os.environ[_PRECISION_VARIABLE]


@functools.cache
def _is_precise(kernel: Kernel, device: torch.device, nheads: int, headdim: int, groups: int, n: int) -> bool:
    """Whether the kernel gives what plain PyTorch gives, for random inputs of a model's sizes."""
    generator = torch.Generator().manual_seed(0)
    batch, length = 4, 4 * CHUNK + 5
    x, B, C, state, dt, A, D = (
        make(*shape, generator=generator).to(device)
        for make, shape in (
            (torch.randn, (batch, length, nheads, headdim)),
            (torch.randn, (batch, length, groups, n)),
            (torch.randn, (batch, length, groups, n)),
            (torch.randn, (batch, nheads, headdim, n)),
            (torch.rand, (batch, length, nheads)),
            (torch.rand, (nheads,)),
            (torch.randn, (nheads,)),
        )
    )
    dt, A = dt / 10, -8 * A
    expected = chunk_scan(x, dt, A, B, C, D, state=state)
    try:
        found = _scan(kernel, A, D, x, dt, B, C, state)
        pairs = ((found.y, expected.y), (found.state, expected.state))
        error = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
        reason = f"it is off by {error:.1g} of the largest value"
    except RuntimeError as failure:
        error, reason = float("inf"), str(failure).splitlines()[0][:200]
    if error <= _TOLERANCE:
        return True
    _log.warning(
        "mamba-ssm's chunk scan is not used for %d heads of %d with %d states, plain PyTorch runs instead: %s; "
        "where %s is set, unset it",
        nheads,
        headdim,
        n,
        reason,
        _PRECISION_VARIABLE,
    )
    return False


__all__ = ["CHUNK", "FusedChunkScan"]
