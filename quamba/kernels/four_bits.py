"""Float activations times weights of 4-bit codes (W4A16), from the codes as they are saved.

On CUDA devices of capability 8.0 or later this package's kernels in Triton read them: one row in integer dot products,
90 dB from float32; more rows on the tensor cores, 71 dB. Elsewhere, and for what the kernels do not take, the caller
multiplies in float32. Triton is imported at the first product on such a device, and never before.
"""

import functools
import importlib
import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Integer dot products and what Triton compiles for begin here.
_LEAST_CAPABILITY = (8, 0)
# Launches can overlap from here on.
_PDL_CAPABILITY = (9, 0)
# Columns that share a scale.
_GROUP = 128
# From so many rows on the weight is expanded for each product: cuBLAS makes more of it than that costs.
_MANY_ROWS = 512

_log = logging.getLogger(__name__)


def linear_of_codes(x: Tensor, codes: Tensor, group_scale: Tensor, bias: Tensor | None) -> Tensor | None:
    """x W^T + b.

    Args:
        x: float32, float16 or bfloat16 [..., K].
        codes: uint8 [N, K / 2] (`quamba.packing`).
        group_scale: float16 [N, K / 128].
        bias: float32 [N], or None.

    Returns:
        float32 [..., N], or None where no kernel computes it.
    """
    columns = x.shape[-1]
    rows = x.numel() // max(columns, 1)
    if x.device.type != "cuda" or not rows or columns % _GROUP or group_scale.shape[1] * _GROUP != columns:
        return None
    kernels = _kernels(x.device)
    if kernels is None or not (codes.is_contiguous() and group_scale.is_contiguous()):
        return None
    # Launches go to the current device, whatever tensors they have.
    with torch.cuda.device(x.device):
        y = kernels.multiply(x.reshape(rows, columns), codes, group_scale, bias)
    return y.view(*x.shape[:-1], -1)


@dataclass(frozen=True, slots=True)
class Kernels:
    """What multiplies on a device.

    Attributes:
        split: the module of that name, and so on.
        halves: of what more rows become.
        gemv: of one row.
        gemm: of more rows.
        expand: of very many.
        turned: a weight's groups' scales as products of more rows read them.
        pdl: overlap launches.
        device: use the device's own instructions; false under the interpreter.
    """

    split: Any
    halves: Any
    gemv: Any
    gemm: Any
    expand: Any
    turned: Any
    pdl: bool
    device: bool = True

    @classmethod
    def load(cls, *, pdl: bool, device: bool = True) -> "Kernels":
        """Import them.

        Raises:
            ImportError: Triton is not there.
        """
        names = ("split", "halves", "gemv4_half", "gemm4_half", "expand4", "gemm4")
        split, halves, gemv, gemm, expand, four = (
            importlib.import_module(f"quamba.kernels.triton_{name}") for name in names
        )
        return cls(split, halves, gemv, gemm, expand, four.turned, pdl, device)

    def multiply(self, x: Tensor, codes: Tensor, group_scale: Tensor, bias: Tensor | None) -> Tensor:
        """x float [M, K] to float32 [M, N]."""
        (rows, columns), width = x.shape, len(codes)
        out = torch.empty(rows, width, device=x.device)
        if rows == 1:
            split = self.split.Split.empty(rows, columns, x.device)
            self.split.split(x, split, pdl=self.pdl)
            how = {"device": self.device, "pdl": self.pdl}
            self.gemv.gemv4_half(split, codes, group_scale, bias, out, kind=1, **how)
            return out
        halves = self.halves.Halves.empty(rows, columns, x.device)
        self.halves.halves(x, halves, pdl=self.pdl)
        if rows < _MANY_ROWS:
            how = {"device": self.device, "pdl": self.pdl}
            self.gemm.gemm4_half(halves, codes, self.turned(group_scale), bias, out, kind=1, **how)
            return out
        weight = self.expand.expand4(codes, group_scale, integers=False, device=self.device)
        out = torch.mm(halves.values, weight.t(), out_dtype=torch.float32).mul_(halves.unit[:, None])
        return out if bias is None else out.add_(bias)


@functools.cache
def _kernels(device: torch.device) -> Kernels | None:
    capability = torch.cuda.get_device_capability(device)
    if capability < _LEAST_CAPABILITY:
        reason = f"compute capability {capability[0]}.{capability[1]} has no kernels for them, 8.0 is the least"
    else:
        try:
            kernels = Kernels.load(pdl=capability >= _PDL_CAPABILITY)
            reason = _disagreement(kernels, device)
        except Exception as error:  # noqa: BLE001  # Compilers and drivers raise what they like.
            reason = f"kernels for them fail here ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        else:
            if not reason:
                return kernels
    _log.warning("4-bit weights meet float activations in float32, slower and in 8 times their memory, as %s", reason)
    return None


def _disagreement(kernels: Kernels, device: torch.device) -> str:
    """Why kernels cannot be relied on here, or nothing."""
    reference = kernels.gemv.gemv4_half_reference
    generator = torch.Generator().manual_seed(0)
    for rows in (1, 3, _MANY_ROWS):
        x = torch.randn(rows, 2 * _GROUP, generator=generator).to(device)
        codes = torch.randint(0, 256, (32, _GROUP), dtype=torch.uint8, generator=generator).to(device)
        scale = torch.rand(32, 2, generator=generator).half().to(device)
        expected = torch.empty(rows, 32, device=device)
        reference(x, codes, scale, None, expected)
        apart = float((kernels.multiply(x, codes, scale, None) - expected).norm() / expected.norm())
        # NaN is no agreement.
        if not apart < _TOLERANCE:
            return f"what their kernels say here is off by {apart:.2g} of its size"
    return ""


# 60 dB.
_TOLERANCE = 1e-3

__all__ = ["Kernels", "linear_of_codes"]
