# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""Rows of floats as float16 (what W4A16 multiplies on the tensor cores), behind a norm or not.

    x_mk / u_m        u_m a power of two

Even columns come before odd ones, as the bytes of the weight have them. A row's largest becomes 2^14 to 2^15.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.triton_common import wait_before


@triton.jit
def halves_kernel(
    x,
    norm_weight,
    out,
    unit,
    x_stride,
    eps,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
    NORM: tl.constexpr,
    PDL: tl.constexpr,
):
    """One row; BLOCK is K / 2, made a power of two."""
    pairs = tl.arange(0, BLOCK)
    place = pairs[:, None] * 2 + tl.arange(0, 2)[None, :]
    row = tl.program_id(0).to(tl.int64)
    if NORM:
        gain = tl.load(norm_weight + place, mask=place < K, other=0.0)
    wait_before(PDL)
    values = tl.load(x + row * x_stride + place, mask=place < K, other=0.0).to(tl.float32)
    if NORM:
        squares = tl.sum(tl.sum(values * values, axis=1), axis=0)
        values = values * tl.rsqrt(squares / K + eps) * gain
    largest = tl.max(tl.max(tl.abs(values), axis=1), axis=0)
    # The power of two below the largest becomes 2^14.
    power = (largest.to(tl.int32, bitcast=True) & 0x7F800000).to(tl.float32, bitcast=True)
    u = tl.maximum(power, 1e-30) * (1.0 / 16384.0)
    even, odd = tl.split((values * (1.0 / u)).to(tl.float16))
    tl.store(out + row * K + pairs, even, mask=pairs * 2 < K)
    tl.store(out + row * K + K // 2 + pairs, odd, mask=pairs * 2 < K)
    tl.store(unit + row, u)


@dataclass(frozen=True, slots=True, eq=False)
class Halves:
    """Rows in float16: values [M, K], even columns before odd ones; unit float32 [M], what each row's are in."""

    values: Tensor
    unit: Tensor

    @classmethod
    def empty(cls, rows: int, columns: int, device: torch.device) -> "Halves":
        """Room for rows."""
        values = torch.empty(rows, columns, dtype=torch.float16, device=device)
        return cls(values, torch.empty(rows, device=device))


def halves(x: Tensor, out: Halves, *, norm: tuple[Tensor, float] | None = None, pdl: bool = False) -> None:
    """Launch it.

    Args:
        x: float32, float16 or bfloat16 [M, K], K even; rows may lie apart.
        out: what it fills.
        norm: the weight float32 [K] and eps of a norm before.
        pdl: overlap with the kernel before.
    """
    rows, columns = x.shape
    block = triton.next_power_of_2(columns // 2)
    weight, eps = (out.unit, 0.0) if norm is None else norm
    halves_kernel[(rows,)](
        x,
        weight,
        out.values,
        out.unit,
        x.stride(0),
        eps,
        K=columns,
        BLOCK=block,
        NORM=norm is not None,
        PDL=pdl,
        num_warps=4 if block <= 2048 else 8,
        enable_fp_fusion=False,
        **({"launch_pdl": True} if pdl else {}),
    )


def halves_reference(x: Tensor, out: Halves, *, norm: tuple[Tensor, float] | None = None) -> None:
    """The definition, in plain PyTorch; arguments as `halves`."""
    x = x.float()
    if norm is not None:
        x = torch.nn.functional.rms_norm(x, norm[0].shape, *norm)
    _, exponent = torch.frexp(x.abs().amax(1))
    out.unit.copy_(torch.ldexp(torch.ones_like(x[:, 0]), (exponent - 15).clamp(min=-113)))
    rounded = (x / out.unit[:, None]).half()
    out.values.copy_(torch.cat((rounded[:, 0::2], rounded[:, 1::2]), 1))


__all__ = ["Halves", "halves", "halves_kernel", "halves_reference"]
