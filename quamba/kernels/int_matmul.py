"""Products of 8-bit integer matrices, exact on every machine.

`torch._int_mm` uses the processor's integer instructions. Not every processor's are exact: those that add pairs of
products in 16 bits saturate. So the first use on a device multiplies matrices of the extreme values and compares; where
that fails, products run in float32 over slices of the inner dimension that are short enough for every partial sum to
stay below 2^24, where float32 holds all integers. They run so too where that is faster: processors without instructions
for 8-bit products take ten times as long for them as for products in float32.
"""

import functools
import time

import torch
from torch import Tensor

# 1024 * 128 * 128 = 2^24: the longest inner dimension whose sums float32 holds exactly.
_EXACT_INNER = 1024
# Up to so many rows reading the weights is what costs, and 8-bit ones are read as they are.
_FEW_ROWS = 4


def int8_matmul(a: Tensor, b: Tensor) -> Tensor:
    """a b^T with 32-bit accumulation.

    Args:
        a: int8 [M, K].
        b: int8 [N, K]; K < 2^17, so that no sum can overflow.

    Returns:
        int32 [M, N].
    """
    native = _native_is_exact(a.device.type, a.device.index)
    if native and (a.device.type != "cpu" or len(a) <= _FEW_ROWS or _native_is_fast()):
        return _native(a, b)
    return _in_float32(a, b)


def int8_matmul_reference(a: Tensor, b: Tensor) -> Tensor:
    """The definition, in 64-bit integers; same arguments and shapes as `int8_matmul`."""
    return torch.einsum("mk,nk->mn", a.long(), b.long()).to(torch.int32)


def _native(a: Tensor, b: Tensor) -> Tensor:
    if a.device.type == "cpu":
        if a.shape[1] == 1:
            # torch returns memory it has not written for an inner dimension of 1 (seen with 2.13).
            a, b = (torch.nn.functional.pad(operand, (0, 1)) for operand in (a, b))
        return torch._int_mm(a, b.t())
    return _by_cublas(a, b)


def _by_cublas(a: Tensor, b: Tensor) -> Tensor:
    # cuBLASLt takes more than 16 rows and multiples of 8 only; rows and columns of zeros add nothing. An
    # inner dimension of whole 16 bytes keeps every row aligned.
    rows, inner, columns = a.shape[0], a.shape[1], b.shape[0]
    a = _padded(a, max(17 - rows, 0), -inner % 16)
    b = _padded(b, -columns % 8, -inner % 16)
    return torch._int_mm(a, b.t())[:rows, :columns]


def _padded(operand: Tensor, rows: int, columns: int) -> Tensor:
    """With zeros below and to the right. It begins, and each row does, where cuBLASLt can read it."""
    if rows or columns:
        return torch.nn.functional.pad(operand, (0, columns, 0, rows))
    return (
        operand
        if operand.is_contiguous() and operand.data_ptr() % 16 == 0
        else operand.clone(memory_format=torch.contiguous_format)
    )


def _in_float32(a: Tensor, b: Tensor) -> Tensor:
    total = torch.zeros(a.shape[0], b.shape[0], dtype=torch.int32, device=a.device)
    for start in range(0, a.shape[1], _EXACT_INNER):
        part = slice(start, start + _EXACT_INNER)
        total += torch.mm(a[:, part].float(), b[:, part].float().t()).to(torch.int32)
    return total


@functools.cache
def _native_is_exact(device_type: str, index: int | None) -> bool:
    device = torch.device(device_type) if index is None else torch.device(device_type, index)
    generator = torch.Generator().manual_seed(0)
    for rows in (1, 24):
        a = torch.randint(-128, 128, (rows, 160), dtype=torch.int8, generator=generator)
        b = torch.randint(-128, 128, (32, 160), dtype=torch.int8, generator=generator)
        a[0], b[:8], b[8:16] = -128, -128, 127
        try:
            product = _native(a.to(device), b.to(device)).cpu()
        except RuntimeError:
            return False
        if not torch.equal(product, int8_matmul_reference(a, b)):
            return False
    return True


@functools.cache
def _native_is_fast() -> bool:
    """Whether this processor's integer products take no longer than float32's; either way results are the same."""
    a, b = (torch.ones(64, 256, dtype=torch.int8) for _ in range(2))
    times = []
    for product in (_native, _in_float32):
        taken = []
        for _ in range(5):
            start = time.perf_counter()
            product(a, b)
            taken.append(time.perf_counter() - start)
        times.append(min(taken))
    return times[0] <= times[1]


__all__ = ["int8_matmul", "int8_matmul_reference"]
