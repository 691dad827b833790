# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""The norm before a projection, as codes: q8(RMSNorm(r) w; s), a row a program.

For many rows: where they are few, `quamba.kernels.triton_gemv` does it on the way.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.triton_common import quantize, wait_before
from quamba.qtypes import quantize_int8


@triton.jit
def norm_kernel(x, weight, scale, out, eps, D, BLOCK: tl.constexpr, PDL: tl.constexpr):
    """Row program_id(0)."""
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    w = tl.load(weight + d, mask=d < D, other=0.0)
    s = tl.load(scale)
    wait_before(PDL)
    r = tl.load(x + row * D + d, mask=d < D, other=0.0)
    rstd = tl.rsqrt(tl.sum(r * r, axis=0) / D + eps)
    tl.store(out + row * D + d, quantize(r * rstd * w, s).to(tl.int8), mask=d < D)


def norm(
    x: Tensor, weight: Tensor, scale: Tensor, out: Tensor, *, eps: float, warps: int = 8, pdl: bool = False
) -> None:
    """Launch it.

    Args:
        x: float32 [M, D].
        weight: float32 [D].
        scale: float32, of the codes.
        out: int8 [M, D].
        eps: added to the mean square.
        warps: of a program.
        pdl: overlap with the kernel before.
    """
    norm_kernel[(len(x),)](
        x,
        weight,
        scale,
        out,
        eps,
        x.shape[1],
        BLOCK=triton.next_power_of_2(x.shape[1]),
        PDL=pdl,
        num_warps=warps,
        enable_fp_fusion=False,
        **({"launch_pdl": True} if pdl else {}),
    )


def norm_reference(x: Tensor, weight: Tensor, scale: Tensor, out: Tensor, *, eps: float) -> None:
    """The definition, in plain PyTorch; arguments as `norm`."""
    out.copy_(quantize_int8(torch.nn.functional.rms_norm(x, weight.shape, weight, eps), scale).codes)


__all__ = ["norm", "norm_kernel", "norm_reference"]
