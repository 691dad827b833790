"""A product of a step: by the kernel for its number of rows and its weight's bits."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from quamba.decoding.plan import Product
from quamba.kernels.convolution import Convolution, Following, Past
from quamba.kernels.launch import Launch
from quamba.kernels.triton_conv_step import conv_step
from quamba.kernels.triton_expand4 import expand4
from quamba.kernels.triton_gemm import gemm
from quamba.kernels.triton_gemm4 import gemm4, turned
from quamba.kernels.triton_gemv import gemv
from quamba.kernels.triton_gemv4 import gemv4
from quamba.kernels.triton_norm import norm

# Of more rows, 4-bit codes are made integers once.
_ROWS_OF_FOUR_BITS = 256


@dataclass(frozen=True, slots=True, eq=False)
class Before:
    """The norm before a product.

    Attributes:
        weight: float32 [K].
        eps: added to the mean square.
        codes: room for what it gives, int8 [Bt, K].
    """

    weight: Tensor
    eps: float
    codes: Tensor


def multiply(
    p: Product,
    x: Tensor,
    out: Tensor,
    kind: int,
    how: Launch,
    before: Before | None = None,
    conv: tuple[Convolution, Past] | None = None,
    following: Following | None = None,
) -> None:
    """Launch it.

    Args:
        p: the layer.
        x: int8 [Bt, K], or float32 [Bt, K] where a norm comes before.
        out: int8 or float32 [Bt, N].
        kind: what becomes of the product, as in `quamba.kernels.triton_gemv`.
        how: to launch.
        before: the norm before it.
        conv: the convolution behind it.
        following: for few rows, a product of the codes behind the convolution.
    """
    few = len(x) <= how.few
    if before is not None and not (few and p.shape[0] <= how.norm_rows):
        norm(x, before.weight, p.in_scale, before.codes, eps=before.eps, pdl=how.pdl)
        x, before = before.codes, None
    if few:
        given = None if before is None else (before.weight, p.in_scale, before.eps)
        behind: dict[str, Any] = {"norm": given, "conv": conv, "following": following}
        if p.packed is None:
            gemv(x, p.codes(), p.scale, p.bias, out, kind=kind, **behind, **how.gemv(*p.shape))
        else:
            gemv4(x, p.packed, p.scale, p.bias, out, kind=kind, **behind, **how.gemv(*p.shape, bits=4))
        return
    # Many rows, step after step: integers that are kept are the faster.
    gemm(x, p.codes(), p.scale, p.bias, out, kind=kind, **how.gemm())
    if conv is not None:
        conv_step(out, *conv, pdl=how.pdl)


def multiply_many(p: Product, x: Tensor, out: Tensor, kind: int, how: Launch) -> None:
    """Launch a prompt's product on the tensor cores; arguments as `multiply`.

    Where no integers have been made of 4-bit codes none are kept: they are made on the way to the tensor cores, for
    very many rows once for all of them.
    """
    grouped = p.grouped()
    if grouped is None:
        gemm(x, p.codes(), p.scale, p.bias, out, kind=kind, **how.gemm())
        return
    codes, factors = grouped
    # A launch that overlaps would read what is made here too early.
    if len(x) <= _ROWS_OF_FOUR_BITS:
        gemm4(x, codes, turned(factors), p.scale, p.bias, out, kind=kind, device=how.device)
        return
    w = expand4(codes, factors, integers=True, device=how.device)
    gemm(x, w, p.scale, p.bias, out, kind=kind, **how.gemm() | {"pdl": False})


__all__ = ["Before", "multiply", "multiply_many"]
