# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""The Mamba-1 recurrence in float32, with the states after every so many tokens, in one launch.

    h_t = exp(dt_t A) * h_{t-1} + (dt_t x_t) B_t^T        y_t = h_t C_t + D * x_t

A program is one warp that carries the states of 32 channels through all tokens: a thread has one channel with all its
states, so that nothing is exchanged, and exponentials are the limit. Tensors are read as they lie.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.selective_scan import ScanResult, selective_scan
from quamba.kernels.triton_common import only_if

# Channels of a program, one for each thread of a warp, with their states in registers.
_CHANNELS, _MAX_STATES = 32, 64
_STAGES = 3
# Elements of a row are counted in 31 bits, rows along the second axis of a grid.
_MAX_ROW, _MAX_ROWS = (1 << 31) - 1, (1 << 16) - 1
# Tokens between checks for the end, where no states on the way are wanted; and for few tokens.
_CHUNK, _SHORT_CHUNK, _SHORT = 128, 16, 64
_LOG2E = 1.4426950408889634
# For `agrees`, in parts of the largest value; 2e-6 were seen.
_TOLERANCE = 1e-4


@triton.jit(do_not_specialize=["L", "one"])
def scan_kernel(
    x,
    dt,
    A,
    B,
    C,
    D,
    before,
    y,
    last,
    marks,
    L,
    E,
    N,
    b_row,
    b_token,
    one,
    HAS_STATE: tl.constexpr,
    HAS_MARKS: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
    CHUNK: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Channels program_id(0), row program_id(1)."""
    row = tl.program_id(1).to(tl.int64)
    e = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    n = tl.arange(0, STATES)
    live, there = e < E, n < N
    both = live[:, None] & there[None, :]
    state = e[:, None] * N + n[None, :] * one
    # The distance of channels, which is 1, is not told: a thread has single ones, and their states all.
    a = tl.load(A + n[None, :] * E + e[:, None] * one, mask=both, other=0.0)
    d = tl.load(D + e, mask=live, other=0.0)
    h = tl.zeros([CHANNELS, STATES], tl.float32)
    if HAS_STATE:
        h = tl.load(before + row * E * N + state, mask=both, other=0.0)
    x += row * L * E
    dt += row * L * E
    y += row * L * E
    B += row * b_row
    C += row * b_row
    begin = 0
    while begin < L:
        for step in tl.range(0, CHUNK, num_stages=STAGES):
            t = begin + step
            within = only_if(live, t < L)
            v = tl.load(x + t * E + e, mask=within, other=0.0)
            delta = tl.load(dt + t * E + e, mask=within, other=0.0)
            b = tl.load(B + t * b_token + n, mask=only_if(there, t < L), other=0.0)
            c = tl.load(C + t * b_token + n, mask=only_if(there, t < L), other=0.0)
            h = tl.exp2(delta[:, None] * a) * h + (delta * v)[:, None] * b[None, :]
            tl.store(y + t * E + e, tl.sum(h * c[None, :], axis=1) + d * v, mask=within)
        if HAS_MARKS:
            tl.store(marks + (row * tl.cdiv(L, CHUNK) + begin // CHUNK) * E * N + state, h, mask=both)
        begin += CHUNK
    tl.store(last + row * E * N + state, h, mask=both)


def float_scan(
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
    """Launch it; arguments and result as `quamba.kernels.selective_scan.selective_scan`, its reference.

    B and C may be columns of one tensor.

    Raises:
        ValueError: shapes that are not for it, see `fits`.
    """
    if not fits(x, A):
        raise ValueError(f"no kernel for {list(x.shape)} with {A.shape[1]} states")
    rows, length, channels = x.shape
    n = A.shape[1]
    x, dt = x.contiguous(), dt.contiguous()
    if B.stride() != C.stride() or B.stride(2) != 1:
        B, C = B.contiguous(), C.contiguous()
    y = torch.empty_like(x)
    last = x.new_empty(rows, channels, n)
    marks = None if stride is None else x.new_empty(rows, -(-length // stride), channels, n)
    scan_kernel[(triton.cdiv(channels, _CHANNELS), rows)](
        x,
        dt,
        (A * _LOG2E).t().contiguous(),
        B,
        C,
        D,
        x if state is None else state.contiguous(),
        y,
        last,
        last if marks is None else marks,
        length,
        channels,
        n,
        B.stride(0),
        B.stride(1),
        1,
        HAS_STATE=state is not None,
        HAS_MARKS=marks is not None,
        CHANNELS=_CHANNELS,
        STATES=triton.next_power_of_2(n),
        CHUNK=stride or (_CHUNK if length > _SHORT else _SHORT_CHUNK),
        STAGES=_STAGES,
        num_warps=1,
    )
    return ScanResult(y, last, marks)


def fits(x: Tensor, A: Tensor) -> bool:
    """Whether the kernel can take x [Bt, L, E] with A [E, N]: float32, up to 64 states."""
    rows, length, channels = x.shape
    return (
        A.shape[1] <= _MAX_STATES
        and x.dtype == torch.float32
        and rows <= _MAX_ROWS
        and 0 < length * channels <= _MAX_ROW
    )


@torch.no_grad()
def agrees(device: torch.device) -> bool:
    """Whether the kernel gives what plain PyTorch gives there, for a few tokens with states on the way and without."""
    generator = torch.Generator().manual_seed(0)
    rows, length, channels, n = 2, 150, 96, 16

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    x, dt, A, D = (
        randn(rows, length, channels),
        randn(rows, length, channels).abs() / 8,
        randn(channels, n),
        randn(channels),
    )
    both = randn(rows, length, 2 * n)
    B, C = both[..., :n], both[..., n:]
    for stride in (None, 128):
        found = float_scan(x, dt, -A.abs(), B, C, D, stride=stride)
        expected = selective_scan(x, dt, -A.abs(), B, C, D, stride=stride)
        pairs = [(found.y, expected.y), (found.state, expected.state)]
        if found.checkpoints is not None and expected.checkpoints is not None:
            pairs.append((found.checkpoints, expected.checkpoints))
        # NaN is no agreement.
        if not all(float((a - b).abs().max() / b.abs().max()) <= _TOLERANCE for a, b in pairs):
            return False
    return True


__all__ = ["agrees", "fits", "float_scan", "scan_kernel"]
