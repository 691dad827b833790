# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""The elements of each document that reach its threshold, side by side and in no particular order.

    found_d = |x_dtc| over real t where |x_dtc| >= threshold_d        sizes_d += how many

Or those of all documents together that lie above one threshold. Of what does not fit, `sizes` alone tells.
"""

import triton
import triton.language as tl
from torch import Tensor

_TOKENS, _CHANNELS = 16, 256


@triton.jit(do_not_specialize=["T", "M"])
def gather_kernel(
    x,
    counts,
    threshold,
    sizes,
    found,
    row_stride,
    token_stride,
    T,
    C,
    M,
    HAS_COUNTS: tl.constexpr,
    TOKENS: tl.constexpr,
    CHANNELS: tl.constexpr,
    TOGETHER: tl.constexpr,
):
    """Channels program_id(0), document program_id(1), tokens program_id(2)."""
    row = tl.program_id(1).to(tl.int64)
    c = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    t = tl.program_id(2) * TOKENS + tl.arange(0, TOKENS)
    count = T
    if HAS_COUNTS:
        count = tl.minimum(tl.load(counts + row).to(tl.int32), T)
    live = (t < count)[:, None] & (c < C)[None, :]
    v = tl.abs(
        tl.load(x + row * row_stride + t.to(tl.int64)[:, None] * token_stride + c[None, :], mask=live, other=0.0)
    )
    if TOGETHER:
        mine = live & (v > tl.load(threshold))
        row = row * 0
    else:
        mine = live & (v >= tl.load(threshold + row))
    wanted = tl.reshape(tl.where(mine, v, -1.0), [TOKENS * CHANNELS])
    found_here = (wanted >= 0.0).to(tl.int32)
    total = tl.sum(found_here)
    if total > 0:
        place = tl.atomic_add(sizes + row, total, sem="relaxed") + tl.cumsum(found_here) - found_here
        tl.store(found + row * M + place, wanted, mask=(found_here > 0) & (place < M))


def gather_tail(
    x: Tensor,
    counts: Tensor | None,
    threshold: Tensor,
    sizes: Tensor,
    found: Tensor,
    *,
    together: bool = False,
) -> None:
    """Launch it.

    Args:
        x: float32 [Bt, T, C], its last axis contiguous.
        counts: int64 [Bt], how many of each row's T entries are real; None: all.
        threshold: float32 [Bt]; or [1], of all documents together: what is equal to it is left out.
        sizes: int32 [Bt], added to; or int64 [1].
        found: float32 [Bt, M], contiguous; written from `sizes` on; or [1, M].
        together: all documents have one threshold and one place.
    """
    rows, tokens, channels = x.shape
    height = min(_TOKENS, triton.next_power_of_2(tokens))
    wide = _TOKENS * _CHANNELS // height
    gather_kernel[(triton.cdiv(channels, wide), rows, triton.cdiv(tokens, height))](
        x,
        x if counts is None else counts,
        threshold,
        sizes,
        found,
        x.stride(0),
        x.stride(1),
        tokens,
        channels,
        found.shape[1],
        HAS_COUNTS=counts is not None,
        TOKENS=height,
        CHANNELS=wide,
        TOGETHER=together,
        num_warps=4,
    )


def gather_tail_reference(
    x: Tensor,
    counts: Tensor | None,
    threshold: Tensor,
    sizes: Tensor,
    found: Tensor,
    *,
    together: bool = False,
) -> None:
    """The definition, in plain PyTorch; arguments as `gather_tail`."""
    for d, values in enumerate(x):
        real = (values if counts is None else values[: int(counts[d])]).abs()
        row = 0 if together else d
        reached = real[real > threshold[0]] if together else real[real >= threshold[d]]
        begin, end = int(sizes[row]), min(found.shape[1], int(sizes[row]) + len(reached))
        found[row, begin:end] = reached[: max(0, end - begin)]
        sizes[row] += len(reached)


__all__ = ["gather_kernel", "gather_tail", "gather_tail_reference"]
