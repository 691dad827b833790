# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""The first launch of a step: rows of the embedding as float32."""

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def embed_kernel(ids, table, scale, out, D, SCALED: tl.constexpr, BLOCK: tl.constexpr):
    """Columns BLOCK * program_id(0).. of batch row program_id(1)."""
    columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.program_id(1)
    token = tl.load(ids + row)
    values = tl.load(table + token * D + columns, mask=columns < D, other=0).to(tl.float32)
    if SCALED:
        values = values * tl.load(scale + token)
    tl.store(out + row * D + columns, values, mask=columns < D)


def embed(ids: Tensor, table: Tensor, scale: Tensor | None, out: Tensor) -> None:
    """Launch it.

    Args:
        ids: int64 [Bt].
        table: int8 or float32 [V, D].
        scale: float32 [V], for int8.
        out: float32 [Bt, D].
    """
    width = table.shape[1]
    embed_kernel[(triton.cdiv(width, 512), len(ids))](
        ids,
        table,
        out if scale is None else scale,
        out,
        width,
        SCALED=scale is not None,
        BLOCK=512,
        num_warps=4,
    )


def embed_reference(ids: Tensor, table: Tensor, scale: Tensor | None, out: Tensor) -> None:
    """The definition, in plain PyTorch; arguments as `embed`."""
    out.copy_(table[ids] if scale is None else table[ids] * scale[ids][:, None])


__all__ = ["embed", "embed_kernel", "embed_reference"]
