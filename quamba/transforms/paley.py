"""Hadamard matrices from quadratic residues (Paley, On orthogonal matrices, 1933)."""

from itertools import product

import torch
from torch import Tensor, nn

# Order of a matrix: (construction, p, d), from the finite field of q = p^d elements. Construction I has order q + 1 and
# needs q = 3 mod 4, construction II has order 2 (q + 1) and needs q = 1 mod 4.
_FIELDS = {
    12: ("I", 11, 1),
    20: ("I", 19, 1),
    28: ("II", 13, 1),
    36: ("II", 17, 1),
    44: ("I", 43, 1),
    52: ("II", 5, 2),
    60: ("I", 59, 1),
}
PALEY_ORDERS = tuple(_FIELDS)
# 2 is no square modulo 5: GF(25) is GF(5) with its root.
_ROOT_OF = {5: 2}


def paley_matrix(order: int) -> Tensor:
    """H of +-1 with H H^T = n I, float64 [n, n], for an order n of `PALEY_ORDERS`.

    By way of S = [[0, 1], [+-1, Q]], Q the quadratic characters of differences, for which S S^T = q I. Construction I
    is S + I, for Q is skew; construction II puts two by two blocks in the place of S's entries, for Q is symmetric.
    """
    construction, p, degree = _FIELDS[order]
    Q = _jacobsthal(p, degree)
    bordered = nn.functional.pad(Q, (1, 0, 1, 0), value=1.0)
    bordered[0, 0] = 0.0
    identity = torch.eye(len(bordered), dtype=torch.float64)
    if construction == "I":
        bordered[1:, 0] = -1.0
        return bordered + identity
    off_diagonal, diagonal = _float64([[1.0, 1.0], [1.0, -1.0]]), _float64([[1.0, -1.0], [-1.0, -1.0]])
    return torch.kron(bordered, off_diagonal) + torch.kron(identity, diagonal)


def _jacobsthal(p: int, degree: int) -> Tensor:
    """Q_ij = chi(a_i - a_j) over the field of p or p^2 elements: 1 for squares, -1 for others, 0 for 0."""
    elements = list(product(range(p), repeat=degree))
    squares: set[tuple[int, ...]]
    if degree == 1:
        squares = {(a * a % p,) for (a,) in elements}
    else:
        # (a + b r)^2, where r^2 is no square modulo p.
        squares = {((a * a + _ROOT_OF[p] * b * b) % p, 2 * a * b % p) for a, b in elements}
    zero = elements[0]
    character = {element: 1.0 if element in squares else -1.0 for element in elements} | {zero: 0.0}
    differences = [[tuple((x - y) % p for x, y in zip(a, b, strict=True)) for b in elements] for a in elements]
    return _float64([[character[d] for d in row] for row in differences])


def _float64(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


__all__ = ["PALEY_ORDERS", "paley_matrix"]
