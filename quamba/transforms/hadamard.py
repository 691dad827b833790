"""Hadamard transforms of any size: the matrices of +-1, and the fast product with them.

Row-vector convention throughout: x is rotated to x H. A weight that reads x must become W H, since
x W^T = (x H)(W H)^T for an orthonormal H. Paley's matrices need not be symmetric: H is never used for H^T here.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quamba.transforms.paley import PALEY_ORDERS, paley_matrix

BASE_SIZES = (1, *PALEY_ORDERS)


@dataclass(frozen=True, slots=True)
class HadamardFactors:
    """What a transform is made of: `blocks` times the same H_base ⊗ H_2 ⊗ ... ⊗ H_2 along the diagonal, as a value.

        >>> decompose(1536)
        HadamardFactors(base=12, doublings=7, blocks=1)

    Attributes:
        base: one of `BASE_SIZES`.
        doublings: k, how many factors H_2 there are.
        blocks: 1 for a Hadamard matrix; more where there is none of the size.

    Raises:
        ValueError: there is no such transform.
    """

    base: int
    doublings: int
    blocks: int = 1

    def __post_init__(self) -> None:
        if self.base not in BASE_SIZES:
            raise ValueError(f"no Hadamard matrix of order {self.base} to build on; there are {BASE_SIZES}")
        if self.doublings < 0 or self.blocks < 1:
            raise ValueError(f"a transform of {self.blocks} blocks, doubled {self.doublings} times, cannot be")

    @property
    def order(self) -> int:
        """Size of a block, base * 2^k."""
        return self.base << self.doublings

    @property
    def size(self) -> int:
        """Size of the transform, n."""
        return self.blocks * self.order


def decompose(size: int) -> HadamardFactors:
    """The transform of size n: n = m 2^k with the smallest m of `BASE_SIZES`.

    Where no m fits, blocks of n's largest power of two, which for an odd n is the identity.

    Raises:
        ValueError: a size below 1.
    """
    if size < 1:
        raise ValueError(f"the size of a Hadamard transform must be at least 1, not {size}")
    for base in BASE_SIZES:
        quotient, rest = divmod(size, base)
        if rest == 0 and quotient > 0 and quotient.bit_count() == 1:
            return HadamardFactors(base, quotient.bit_length() - 1)
    power = size & -size
    return HadamardFactors(1, power.bit_length() - 1, size // power)


def hadamard_matrix(order: int) -> Tensor:
    """H_m ⊗ H_2 ⊗ ... ⊗ H_2, H H^T = n I: of +-1, float64 [n, n], for n = m 2^k with an m of `BASE_SIZES`.

    Raises:
        ValueError: no such matrix is known here.
    """
    factors = decompose(order)
    if factors.blocks > 1:
        raise ValueError(f"no Hadamard matrix of order {order} here; there are 2^k times {BASE_SIZES}")
    matrix = paley_matrix(factors.base) if factors.base > 1 else torch.ones(1, 1, dtype=torch.float64)
    doubling = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    for _ in range(factors.doublings):
        matrix = torch.kron(matrix, doubling)
    return matrix


def kronecker_product(x: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """x (I ⊗ left ⊗ right): as a row of x is a stack of [p, q] matrices X, each becomes left^T X right.

    Args:
        x: [..., n], n a multiple of p q.
        left: [p, p].
        right: [q, q].
    """
    p, q = len(left), len(right)
    y = torch.matmul(x.reshape(-1, q), right).view(-1, p, q)
    return torch.bmm(left.T.expand(len(y), p, p), y).view(x.shape)


class Hadamard(nn.Module):
    """x -> x H, orthonormal, for x of size n in the last axis; `inverse` undoes it.

    Its buffers follow from the size and stay out of the state dict.

    Args:
        size: n, or the factors as an earlier version chose them.
        dtype: of the matrices, and so of what passes through.
    """

    left: Tensor
    right: Tensor

    def __init__(self, size: int | HadamardFactors, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.factors = size if isinstance(size, HadamardFactors) else decompose(size)
        # Two products with matrices near sqrt(n): of all splits the fewest operations for two passes over memory. On a
        # CPU core, 512 tokens of n = 4096: 64 x 64 takes half the time of 16 x 256, a ninth of 12 butterfly passes (a
        # tenth for a single token). Three factors gain little at 4096, nothing at 8192, and lose below.
        order, base = self.factors.order, self.factors.base
        splits = [(base << k, order // (base << k)) for k in range(self.factors.doublings + 1)]
        p, q = min(splits, key=sum)
        self.register_buffer("left", hadamard_matrix(p).to(dtype), persistent=False)
        self.register_buffer("right", (hadamard_matrix(q) / math.sqrt(order)).to(dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x H, [..., n] to [..., n]."""
        return kronecker_product(self._checked(x), self.left, self.right)

    def inverse(self, x: Tensor) -> Tensor:
        """x H^T, [..., n] to [..., n]."""
        return kronecker_product(self._checked(x), self.left.T, self.right.T)

    def _checked(self, x: Tensor) -> Tensor:
        # Rows of another size could be cut and joined to rows of this one without a word.
        if x.shape[-1] != self.factors.size:
            raise ValueError(
                f"this rotation is of size {self.factors.size}, and the last axis of {list(x.shape)} is not"
            )
        return x

    def extra_repr(self) -> str:
        """Its size and factors."""
        return f"{self.factors.size}, {self.factors}"


__all__ = ["BASE_SIZES", "Hadamard", "HadamardFactors", "decompose", "hadamard_matrix", "kronecker_product"]
