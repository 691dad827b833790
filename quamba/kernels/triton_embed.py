# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""The first launch of a step: rows of the embedding as float32; and time goes on."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quamba.packing import unpack_int4


@triton.jit
def embed_kernel(ids, position, table, scale, out, D, BITS: tl.constexpr, BLOCK: tl.constexpr):
    """Columns BLOCK * program_id(0).. of batch row program_id(1)."""
    columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.program_id(1)
    if (tl.program_id(0) == 0) & (row == 0):
        # A token later than the last.
        tl.store(position, tl.load(position) + 1)
    token = tl.load(ids + row)
    if BITS == 4:
        pairs = tl.load(table + token * ((D + 1) // 2) + columns // 2, mask=columns < D, other=0).to(tl.int32)
        values = ((((pairs >> (columns % 2 * 4)) & 0xF) ^ 8) - 8).to(tl.float32)
    else:
        values = tl.load(table + token * D + columns, mask=columns < D, other=0).to(tl.float32)
    if BITS < 32:
        values = values * tl.load(scale + token).to(tl.float32)
    tl.store(out + row * D + columns, values, mask=columns < D)


def embed(ids: Tensor, position: Tensor, table: Tensor, scale: Tensor | None, out: Tensor) -> None:
    """Launch it.

    Args:
        ids: int64 [Bt].
        position: int32 [1], the time of the step before; it grows by 1.
        table: int8 or float32 [V, D], or 4-bit codes uint8 [V, ceil(D / 2)] (`quamba.packing`).
        scale: float32 [V] for int8, float16 [V] for 4 bits.
        out: float32 [Bt, D].
    """
    width = out.shape[1]
    embed_kernel[(triton.cdiv(width, 512), len(ids))](
        ids,
        position,
        table,
        out if scale is None else scale,
        out,
        width,
        BITS=32 if scale is None else 4 if table.dtype == torch.uint8 else 8,
        BLOCK=512,
        num_warps=4,
    )


def embed_reference(ids: Tensor, position: Tensor, table: Tensor, scale: Tensor | None, out: Tensor) -> None:
    """The definition, in plain PyTorch; arguments as `embed`."""
    position.add_(1)
    rows = table[ids]
    if rows.dtype == torch.uint8:
        rows = unpack_int4(rows, out.shape[1])
    out.copy_(rows if scale is None else rows * scale[ids].float()[:, None])


__all__ = ["embed", "embed_kernel", "embed_reference"]
