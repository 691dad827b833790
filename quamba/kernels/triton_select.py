# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""Order statistics of rows without sorting: the bits of a float that is not negative are in the order of its value.

    out_ra = (the tails_ra-th largest of row r, the one after it towards larger values)

The answer's bits are found from the first to the last by counting what is not smaller. Each program reads a row 31
times, from its registers where it fits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

# A row of up to so many stays in the registers of a program.
_WHOLE = 32768
# Longer ones are read so many at a time.
_CHUNK = 8192


@triton.jit
def _count(row, size, least, CHUNK: tl.constexpr):
    total = tl.zeros([CHUNK], tl.int32)
    start = 0
    while start < size:
        at = start + tl.arange(0, CHUNK)
        total += (tl.load(row + at, mask=at < size, other=-1) >= least).to(tl.int32)
        start += CHUNK
    return tl.sum(total)


@triton.jit
def _least_from(row, size, least, CHUNK: tl.constexpr):
    found = tl.full([CHUNK], 0x7FFFFFFF, tl.int32)
    start = 0
    while start < size:
        at = start + tl.arange(0, CHUNK)
        v = tl.load(row + at, mask=at < size, other=-1)
        found = tl.minimum(found, tl.where(v >= least, v, 0x7FFFFFFF))
        start += CHUNK
    return tl.min(found)


@triton.jit(do_not_specialize=["A"])
def select_kernel(
    values,
    sizes,
    tails,
    out,
    failed,
    M,
    A,
    HAS_SIZES: tl.constexpr,
    BLOCK: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """Row program_id(0), rank program_id(1)."""
    r = tl.program_id(0).to(tl.int64)
    a = tl.program_id(1)
    tail = tl.load(tails + r * A + a)
    size = M
    if HAS_SIZES:
        size = tl.load(sizes + r)
        if (size > M) | (size < tail):
            tl.store(failed, 1)
        size = tl.minimum(size, M)
    row = values + r * M
    at = tl.arange(0, BLOCK)
    kept = tl.full([BLOCK], -1, tl.int32)
    if WHOLE:
        kept = tl.load(row + at, mask=at < size, other=-1)
    answer = tl.full([], 0, tl.int32)
    for step in range(31):
        attempt = answer | (1 << (30 - step))
        count = tl.sum((kept >= attempt).to(tl.int32)) if WHOLE else _count(row, size, attempt, BLOCK)
        answer = tl.where(count >= tail, attempt, answer)
    if WHOLE:
        beyond = tl.sum((kept > answer).to(tl.int32))
        next_larger = tl.min(tl.where(kept > answer, kept, 0x7FFFFFFF))
    else:
        beyond = _count(row, size, answer + 1, BLOCK)
        next_larger = _least_from(row, size, answer + 1, BLOCK)
    after = tl.where((beyond >= tail - 1) & (tail > 1), next_larger, answer)
    tl.store(out + (r * A + a) * 2, answer)
    tl.store(out + (r * A + a) * 2 + 1, after)


@triton.jit(do_not_specialize=["A"])
def threshold_kernel(values, tails, out, sizes, M, A, BLOCK: tl.constexpr, WHOLE: tl.constexpr):
    """Row program_id(0): the tails_r0-th largest, rounded down to 16 bits; what counts the gathered is cleared."""
    r = tl.program_id(0).to(tl.int64)
    tail = tl.load(tails + r * A)
    row = values + r * M
    at = tl.arange(0, BLOCK)
    kept = tl.full([BLOCK], -1, tl.int32)
    if WHOLE:
        kept = tl.load(row + at, mask=at < M, other=-1)
    answer = tl.full([], 0, tl.int32)
    for step in range(15):
        attempt = answer | (1 << (30 - step))
        count = tl.sum((kept >= attempt).to(tl.int32)) if WHOLE else _count(row, M, attempt, BLOCK)
        answer = tl.where(count >= tail, attempt, answer)
    tl.store(out + r, answer)
    tl.store(sizes + r, 0)


def select(values: Tensor, sizes: Tensor | None, tails: Tensor, out: Tensor, failed: Tensor) -> None:
    """Launch it.

    Args:
        values: float32 [R, M], contiguous; negative ones do not count.
        sizes: int32 [R], how many of each row are there, the first ones; None: all.
        tails: int32 [R, A], at least 1.
        out: float32 [R, A, 2], contiguous; written. Of the largest, the second is the same again.
        failed: int32 [1], set to 1 where a size is larger than M or smaller than one of its tails: `out` is then
            arbitrary.
    """
    rows, columns = values.shape
    block, whole, warps = _shape(columns)
    select_kernel[(rows, tails.shape[1])](
        values.view(torch.int32),
        tails if sizes is None else sizes,
        tails,
        out.view(torch.int32),
        failed,
        columns,
        tails.shape[1],
        HAS_SIZES=sizes is not None,
        BLOCK=block,
        WHOLE=whole,
        num_warps=warps,
    )


def threshold(values: Tensor, tails: Tensor, out: Tensor, sizes: Tensor) -> None:
    """Launch it.

    Args:
        values: float32 [R, M], contiguous; negative ones do not count.
        tails: int32 [R, A]; the first of each row is taken.
        out: float32 [R], written: at most 2^-7 below the value asked for, 0 where a row has fewer.
        sizes: int32 [R], set to 0.
    """
    rows, columns = values.shape
    block, whole, warps = _shape(columns)
    threshold_kernel[(rows,)](
        values.view(torch.int32),
        tails,
        out.view(torch.int32),
        sizes,
        columns,
        tails.shape[1],
        BLOCK=block,
        WHOLE=whole,
        num_warps=warps,
    )


def _shape(columns: int) -> tuple[int, bool, int]:
    """Elements that a program has at a time, whether that is a whole row, and its warps."""
    whole = columns <= _WHOLE
    block = max(128, triton.next_power_of_2(columns)) if whole else _CHUNK
    return block, whole, min(32, max(1, block // 512))


def select_reference(values: Tensor, sizes: Tensor | None, tails: Tensor, out: Tensor, failed: Tensor) -> None:
    """The definition, in plain PyTorch; arguments as `select`."""
    for r, row in enumerate(values):
        size = len(row) if sizes is None else int(sizes[r])
        if size > len(row) or size < int(tails[r].max()):
            failed.fill_(1)
            continue
        descending = row[:size].sort(descending=True).values
        for a, tail in enumerate(tails[r].tolist()):
            out[r, a, 0], out[r, a, 1] = descending[tail - 1], descending[max(0, tail - 2)]


__all__ = ["select", "select_kernel", "select_reference", "threshold", "threshold_kernel"]
