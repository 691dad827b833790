"""A Hadamard transform of a token's channels as `triton_rotate` multiplies by it: two factors.

    X [R, P'], a token's channels in rows: L^T X M        L [R, R] and M [P', P'] of +-1

Tokens whose rows are fewer than a program's are multiplied together, by L^T for each on a diagonal.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# Rows of channels that a program multiplies at once: the fewer, or more where they leave less of them idle.
_ROWS = (64, 128)
# More would take more registers than a thread of four warps has.
MOST_COLUMNS = 128


@dataclass(frozen=True, slots=True)
class Factors:
    """The two factors as a program multiplies by them.

    Attributes:
        rows: of channels that a program takes at once.
        tokens: that these are of.
        token_rows: R, of each.
        matrices: L^T for each token, on a diagonal, float16 [rows, rows]; M, float16 [P', P']; None: no rotation.
    """

    rows: int
    tokens: int
    token_rows: int
    matrices: tuple[Tensor, Tensor] | None

    @classmethod
    def of(
        cls,
        factors: tuple[Tensor, Tensor] | None,
        token_rows: int,
        columns: int,
        *,
        groups: int = 1,
        rows: int | None = None,
    ) -> "Factors | None":
        """Of a rotation's two factors; None: it has more rows than a program takes, or odd columns.

        Args:
            factors: L^T [R, R] and M [P', P'], of +-1; None: no rotation.
            token_rows: R.
            columns: P'.
            groups: of rows that share a norm's mean.
            rows: that a program takes at once; None: as few as hold a token.
        """
        while token_rows > min(_ROWS) and columns < MOST_COLUMNS and token_rows % (2 * groups) == 0:
            halved = _halved(factors) if factors is not None else None
            if factors is not None and halved is None:
                break
            factors, token_rows, columns = halved, token_rows // 2, columns * 2
        if token_rows > max(_ROWS) or columns.bit_count() != 1 or not 16 <= columns <= MOST_COLUMNS:
            return None
        if rows is None:
            rows = min(size for size in _ROWS if size >= token_rows)
        tokens = rows // token_rows
        if factors is None:
            return cls(rows, tokens, token_rows, None)
        left, right = factors
        diagonal = torch.zeros(rows, rows, dtype=torch.float16, device=left.device)
        used = tokens * token_rows
        diagonal[:used, :used] = torch.kron(torch.eye(tokens, device=left.device), left.float())
        return cls(rows, tokens, token_rows, (diagonal, right.contiguous()))


def _halved(factors: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor] | None:
    """The same rotation of half as many rows: (A x H_2) x M = A x (H_2 x M); None: the first is no such product."""
    left, right = factors
    doubling = torch.tensor([[1, 1], [1, -1]], dtype=left.dtype, device=left.device)
    rest = left[::2, ::2]
    if not torch.equal(torch.kron(rest.contiguous(), doubling), left):
        return None
    return rest.contiguous(), torch.kron(doubling, right)


__all__ = ["MOST_COLUMNS", "Factors"]
