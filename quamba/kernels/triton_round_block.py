# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""GPTQ's inner loop over a block of input channels in one launch (arXiv 2210.17323, algorithm 1).

    for j in 0 .. b - 1:   q_j = clamp(round(w_j / step_j));   e_j = (w_j - value(q_j)) / U_jj
                           w_k -= U_jk e_j   for all k > j

step and value are those of `quamba.grids.Grid`. A program has some output channels with all b inputs in its registers.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.triton_common import round_codes
from quamba.qtypes import QMAX, QMIN

_OUT, _WARPS = 32, 4
# For `agrees`: a code that falls to the other side changes all that follow in its column.
_SAME, _ABSOLUTE = 0.98, 1e-3


@triton.jit
def round_block_kernel(
    columns,
    U,
    scales,
    channel_scale,
    which,
    codes,
    errors,
    b,
    N,
    u_row,
    qmin,
    qmax,
    TWO_LEVELS: tl.constexpr,
    ROWS: tl.constexpr,
    OUT: tl.constexpr,
):
    """Output channels program_id(0)."""
    o = tl.program_id(0) * OUT + tl.arange(0, OUT)
    r = tl.arange(0, ROWS)
    live = o < N
    w = tl.load(columns + r[:, None] * N + o[None, :], mask=(r < b)[:, None] & live[None, :], other=0.0)
    channel = tl.full([OUT], 1.0, tl.float32)
    if TWO_LEVELS:
        channel = tl.load(channel_scale + o, mask=live, other=1.0)
    j = 0
    while j < b:
        v = tl.sum(tl.where(r[:, None] == j, w, 0.0), axis=0)
        scale = tl.load(scales + tl.load(which + j) * N + o, mask=live, other=1.0)
        step = scale * channel if TWO_LEVELS else scale
        q = round_codes(tl.minimum(tl.maximum(tl.math.div_rn(v, step), qmin.to(tl.float32)), qmax.to(tl.float32)))
        value = q * scale
        if TWO_LEVELS:
            value = round_codes(value) * channel
        e = tl.math.div_rn(v - value, tl.load(U + j * u_row + j))
        u = tl.load(U + j * u_row + r, mask=(r > j) & (r < b), other=0.0)
        w -= u[:, None] * e[None, :]
        tl.store(codes + j * N + o, q.to(tl.int8), mask=live)
        tl.store(errors + j * N + o, e, mask=live)
        j += 1


def round_block(
    columns: Tensor,
    U: Tensor,
    scales: Tensor,
    channel_scale: Tensor | None,
    which: Tensor,
    bounds: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Launch it.

    Args:
        columns: float32 [b, out], contiguous; stays as it is.
        U: float32 [b, b]; the upper triangle is read.
        scales: float32 [G, out], contiguous, of each grid.
        channel_scale: float32 [out], where grids have two levels.
        which: int32 [b], the grid of each input channel.
        bounds: the smallest and the largest code, within int8.

    Returns:
        Codes int8 [b, out] and errors float32 [b, out].
    """
    b, out = columns.shape
    U = U.contiguous()
    codes, errors = torch.empty_like(columns, dtype=torch.int8), torch.empty_like(columns)
    round_block_kernel[(triton.cdiv(out, _OUT),)](
        columns,
        U,
        scales,
        scales if channel_scale is None else channel_scale,
        which,
        codes,
        errors,
        b,
        out,
        U.stride(0),
        *bounds,
        TWO_LEVELS=channel_scale is not None,
        ROWS=triton.next_power_of_2(b),
        OUT=_OUT,
        num_warps=_WARPS,
        enable_fp_fusion=False,
    )
    return codes, errors


@torch.no_grad()
def agrees(device: torch.device) -> bool:
    """Whether the kernel gives there what plain PyTorch gives, but for codes where a last bit decides."""
    generator = torch.Generator().manual_seed(0)
    columns = torch.randn(24, 40, generator=generator).to(device)
    U = torch.randn(24, 24, generator=generator).triu().to(device) / 8 + torch.eye(24, device=device)
    scales = torch.rand(2, 40, generator=generator).to(device) / 8 + 0.25
    which = torch.arange(24, dtype=torch.int32, device=device) // 12
    for channel in (None, torch.full((40,), 0.01, device=device)):
        factors = scales if channel is None else scales * 60
        given = columns, U, factors, channel, which, (-8, 7)
        (codes, errors), (expected, others) = round_block(*given), round_block_reference(*given)
        same = codes == expected
        if float(same.float().mean()) < _SAME or not torch.allclose(errors[same], others[same], atol=_ABSOLUTE):
            return False
    return True


def round_block_reference(
    columns: Tensor,
    U: Tensor,
    scales: Tensor,
    channel_scale: Tensor | None,
    which: Tensor,
    bounds: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """The definition, in plain PyTorch; arguments and result as `round_block`."""
    w, codes, errors = columns.clone(), torch.empty_like(columns, dtype=torch.int8), torch.empty_like(columns)
    for j in range(len(columns)):
        scale = scales[int(which[j])]
        step = scale if channel_scale is None else scale * channel_scale
        q = (w[j] / step).round().clamp(*bounds)
        value = q * scale
        if channel_scale is not None:
            value = value.round().clamp(QMIN, QMAX) * channel_scale
        codes[j], errors[j] = q, (w[j] - value) / U[j, j]
        w[j + 1 :] -= U[j, j + 1 :, None] * errors[j]
    return codes, errors


__all__ = ["agrees", "round_block", "round_block_kernel", "round_block_reference"]
