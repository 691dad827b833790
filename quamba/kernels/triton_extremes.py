# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""The extremes of each channel of right-padded documents, and the largest |x| of each small block of elements.

    low_c  <- min(low_c, min over real (d, t) of x_dtc)        high_c <- max(high_c, max over real (d, t) of x_dtc)
    maxima_dbj = max |x_dtc| over the tokens t of block b and the FOLD channels c of part j, -inf where none is real

One launch reads the tensor once. A value that is not a number makes its channel's `high` infinite.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.triton_common import only_if

# Elements that a program reads at a time, and channels that it has at least.
_ELEMENTS, _CHANNELS = 4096, 128
# Programs to aim at: several for each multiprocessor.
_PROGRAMS = 2048
# Tokens in a block at most.
BLOCK_TOKENS = 32


@triton.jit(do_not_specialize=["T", "first", "width", "blocks", "loops"])
def extremes_kernel(
    x,
    counts,
    low,
    high,
    maxima,
    row_stride,
    token_stride,
    T,
    C,
    first,
    width,
    blocks,
    loops,
    HAS_COUNTS: tl.constexpr,
    MAXIMA: tl.constexpr,
    TOKENS: tl.constexpr,
    CHANNELS: tl.constexpr,
    FOLD: tl.constexpr,
):
    """Channels program_id(0), document program_id(1), `loops` blocks of tokens, those of number program_id(2)."""
    row = tl.program_id(1).to(tl.int64)
    c = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    count = T
    if HAS_COUNTS:
        count = tl.minimum(tl.load(counts + row).to(tl.int32), T)
    block = tl.program_id(2) * loops
    end = block + loops
    lowest = tl.full([CHANNELS], float("inf"), tl.float32)
    highest = tl.full([CHANNELS], float("-inf"), tl.float32)
    while block < end:
        t = block * TOKENS + tl.arange(0, TOKENS)
        live = (t < count)[:, None] & (c < C)[None, :]
        v = tl.load(x + row * row_stride + t.to(tl.int64)[:, None] * token_stride + c[None, :], mask=live, other=0.0)
        above = tl.max(tl.where(live, tl.where(v == v, v, float("inf")), float("-inf")), axis=0)
        below = tl.min(tl.where(live, v, float("inf")), axis=0)
        highest = tl.maximum(highest, above)
        lowest = tl.minimum(lowest, below)
        if MAXIMA:
            largest = tl.max(tl.reshape(tl.maximum(above, -below), [CHANNELS // FOLD, FOLD]), axis=1)
            part = tl.program_id(0) * (CHANNELS // FOLD) + tl.arange(0, CHANNELS // FOLD) - first // FOLD
            wanted = only_if((part >= 0) & (part < width // FOLD), block < blocks)
            tl.store(maxima + (row * blocks + block) * (width // FOLD) + part, largest, mask=wanted)
        block += 1
    # Most programs find nothing new.
    new = (c < C) & (highest > tl.load(high + c, mask=c < C, other=0.0))
    tl.atomic_max(high + c, highest, mask=new, sem="relaxed")
    new = (c < C) & (lowest < tl.load(low + c, mask=c < C, other=0.0))
    tl.atomic_min(low + c, lowest, mask=new, sem="relaxed")


def extremes(
    x: Tensor,
    counts: Tensor | None,
    low: Tensor,
    high: Tensor,
    *,
    maxima: Tensor | None = None,
    columns: tuple[int, int] = (0, 0),
    fold: int = 1,
) -> None:
    """Launch it.

    Args:
        x: float32 [Bt, T, C], its last axis contiguous.
        counts: int64 [Bt], how many of each row's T entries are real; None: all.
        low: float32 [C], brought up to date; inf where nothing was seen.
        high: float32 [C], likewise; -inf.
        maxima: float32 [Bt, ceil(T / `block_tokens`), width / fold], written; None: none are wanted.
        columns: first and width of the channels whose blocks are wanted, multiples of `fold`.
        fold: channels in a block, a power of two up to 128.
    """
    rows, tokens, channels = x.shape
    height = block_tokens(tokens)
    wide = max(_CHANNELS, _ELEMENTS // height)
    blocks = triton.cdiv(tokens, height)
    across = triton.cdiv(channels, wide)
    loops = 1
    while loops * 2 <= min(8, blocks) and across * rows * triton.cdiv(blocks, loops * 2) >= _PROGRAMS:
        loops *= 2
    extremes_kernel[(across, rows, triton.cdiv(blocks, loops))](
        x,
        x if counts is None else counts,
        low,
        high,
        low if maxima is None else maxima,
        x.stride(0),
        x.stride(1),
        tokens,
        channels,
        columns[0],
        columns[1],
        blocks,
        loops,
        HAS_COUNTS=counts is not None,
        MAXIMA=maxima is not None,
        TOKENS=height,
        CHANNELS=wide,
        FOLD=fold,
        num_warps=4,
    )


def block_tokens(tokens: int) -> int:
    """Tokens in a block of documents of so many: at most 32."""
    return min(BLOCK_TOKENS, int(triton.next_power_of_2(tokens)))


def extremes_reference(
    x: Tensor,
    counts: Tensor | None,
    low: Tensor,
    high: Tensor,
    *,
    maxima: Tensor | None = None,
    columns: tuple[int, int] = (0, 0),
    fold: int = 1,
) -> None:
    """The definition, in plain PyTorch; arguments as `extremes`."""
    rows, tokens, _ = x.shape
    real = torch.ones(rows, tokens, 1, dtype=torch.bool, device=x.device)
    if counts is not None:
        real = (torch.arange(tokens, device=x.device) < counts[:, None])[:, :, None]
    low.copy_(torch.minimum(low, x.masked_fill(~real, torch.inf).amin(dim=(0, 1))))
    high.copy_(torch.maximum(high, x.masked_fill(~real, -torch.inf).amax(dim=(0, 1))))
    if maxima is not None:
        first, width = columns
        part = x.abs().masked_fill(~real, -torch.inf)[:, :, first : first + width]
        blocks = torch.split(part, block_tokens(tokens), dim=1)
        found = torch.stack([block.amax(dim=1) for block in blocks], dim=1)
        maxima.copy_(found.view(*found.shape[:2], -1, fold).amax(dim=3))


__all__ = ["BLOCK_TOKENS", "block_tokens", "extremes", "extremes_kernel", "extremes_reference"]
