"""A scan in pieces: of rows, where a launch would be too large; of tokens, where states between them are wanted."""

from typing import Protocol

import torch
from torch import Tensor

from quamba.kernels.selective_scan import ScanResult

# Elements of the largest tensor of one launch (2 GiB in float32): kernels count them in 31 bits, and work memory grows
# with them.
MAX_ELEMENTS = 1 << 29
# Blocks along the second and third axes of a CUDA grid.
MAX_GRID = (1 << 16) - 1


class Piece(Protocol):
    """A scan with its parameters given."""

    def __call__(self, x: Tensor, dt: Tensor, B: Tensor, C: Tensor, state: Tensor | None) -> ScanResult:
        """Of some rows and some tokens."""
        ...


def in_rows(scan: Piece, rows: int, x: Tensor, dt: Tensor, B: Tensor, C: Tensor, state: Tensor | None) -> ScanResult:
    """Scan at most `rows` rows at a time; rows do not know of each other."""
    if len(x) <= rows:
        return scan(x, dt, B, C, state)
    parts = [slice(start, start + rows) for start in range(0, len(x), rows)]
    results = [scan(x[p], dt[p], B[p], C[p], None if state is None else state[p]) for p in parts]
    marks = [r.checkpoints for r in results if r.checkpoints is not None]
    return ScanResult(
        torch.cat([r.y for r in results]), torch.cat([r.state for r in results]), torch.cat(marks) if marks else None
    )


def in_segments(
    scan: Piece, stride: int, x: Tensor, dt: Tensor, B: Tensor, C: Tensor, state: Tensor | None
) -> ScanResult:
    """Scan `stride` tokens at a time, each segment from the state after the one before: these are the checkpoints."""
    outputs, states = [], []
    for start in range(0, x.shape[1], stride):
        tokens = slice(start, start + stride)
        result = scan(x[:, tokens], dt[:, tokens], B[:, tokens], C[:, tokens], state)
        state = result.state
        outputs.append(result.y)
        states.append(state)
    return ScanResult(torch.cat(outputs, dim=1), states[-1], torch.stack(states, dim=1))


__all__ = ["MAX_ELEMENTS", "MAX_GRID", "Piece", "in_rows", "in_segments"]
