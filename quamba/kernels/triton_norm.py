# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""The norm before a projection, as codes: q8(RMSNorm(r) w; s), a few rows a program.

For many rows: where they are few, `quamba.kernels.triton_gemv` does it on the way.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.triton_common import quantize, wait_before
from quamba.qtypes import quantize_int8

# From so many rows on a program takes several, and reads the weight once for them.
_MANY_ROWS = 4096


@triton.jit
def norm_kernel(x, weight, scale, out, eps, M, D, BLOCK: tl.constexpr, STEPS: tl.constexpr, PDL: tl.constexpr):
    """Rows STEPS * program_id(0).."""
    first = tl.program_id(0) * STEPS
    d = tl.arange(0, BLOCK)
    w = tl.load(weight + d, mask=d < D, other=0.0)
    s = tl.load(scale)
    wait_before(PDL)
    base = first.to(tl.int64) * D
    r = tl.load(x + base + d, mask=d < D, other=0.0)
    for step in tl.static_range(STEPS):
        now = r
        if step + 1 < STEPS:
            # On its way while this one is computed.
            r = tl.load(x + base + (step + 1) * D + d, mask=(d < D) & (first + step + 1 < M), other=0.0)
        rstd = tl.rsqrt(tl.sum(now * now, axis=0) / D + eps)
        codes = quantize(now * rstd * w, s).to(tl.int8)
        tl.store(out + base + step * D + d, codes, mask=(d < D) & (first + step < M))


def norm(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    out: Tensor,
    *,
    eps: float,
    steps: int | None = None,
    warps: int | None = None,
    pdl: bool = False,
) -> None:
    """Launch it.

    Args:
        x: float32 [M, D].
        weight: float32 [D].
        scale: float32, of the codes.
        out: int8 [M, D].
        eps: added to the mean square.
        steps: rows of a program; None: by their number.
        warps: of a program; None: by the number of rows.
        pdl: overlap with the kernel before.
    """
    many = len(x) >= _MANY_ROWS
    steps, warps = steps or (4 if many else 1), warps or (4 if many else 16)
    norm_kernel[(triton.cdiv(len(x), steps),)](
        x,
        weight,
        scale,
        out,
        eps,
        len(x),
        x.shape[1],
        BLOCK=triton.next_power_of_2(x.shape[1]),
        STEPS=steps,
        PDL=pdl,
        num_warps=warps,
        enable_fp_fusion=False,
        **({"launch_pdl": True} if pdl else {}),
    )


def norm_reference(x: Tensor, weight: Tensor, scale: Tensor, out: Tensor, *, eps: float) -> None:
    """The definition, in plain PyTorch; arguments as `norm`."""
    out.copy_(quantize_int8(torch.nn.functional.rms_norm(x, weight.shape, weight, eps), scale).codes)


__all__ = ["norm", "norm_kernel", "norm_reference"]
