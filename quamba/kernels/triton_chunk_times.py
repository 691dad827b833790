# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""Before a Mamba-2 recurrence in chunks: the times of a prompt, and B and C as tensor cores take them.

    dt = softplus(s q + bias) within its limits, 0 behind a row's end
    decay = log2(e) A (sums of dt from a chunk's first token on)
    entry = decay - log2(dt / bound)

so that token s weighs 2^(decay_t - entry_s) dt's bound in what token t of its chunk sees.
"""

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.triton_common import softplus, wait_before

_LOG2E = tl.constexpr(1.4426950408889634)
# Of a token without weight: 2 to minus it is 0, and its difference to another finite.
_NEVER = tl.constexpr(1.0e30)
_HEADS = 16


@functools.cache
def _no_lengths(device: torch.device) -> Tensor:
    return torch.zeros(1, dtype=torch.int64, device=device)


@triton.jit(do_not_specialize=["L", "CHUNKS", "ragged"])
def chunk_times_kernel(
    projected,
    conv,
    dt_scale,
    dt_bias,
    A,
    bound,
    lengths,
    decay,
    entry,
    columns,
    dt_low,
    dt_high,
    L,
    CHUNKS,
    ragged,
    W: tl.constexpr,
    XW: tl.constexpr,
    H: tl.constexpr,
    GN2: tl.constexpr,
    Q: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    PDL: tl.constexpr,
):
    """HEADS heads and WIDTH columns of B and C, of chunk program_id(0)."""
    row, chunk, part = tl.program_id(0) // CHUNKS, tl.program_id(0) % CHUNKS, tl.program_id(1)
    h, n = part * HEADS + tl.arange(0, HEADS), part * WIDTH + tl.arange(0, WIDTH)
    q = tl.arange(0, Q)
    t = chunk * Q + q
    # Tokens behind the last are read as the last, and weigh nothing.
    token = row * L + tl.minimum(t, L - 1)
    s, b = tl.load(dt_scale + h, mask=h < H, other=0.0), tl.load(dt_bias + h, mask=h < H, other=0.0)
    a, top = tl.load(A + h, mask=h < H, other=0.0), tl.load(bound + h, mask=h < H, other=1.0)
    end = tl.load(lengths + row * ragged).to(tl.int32)
    end = tl.where(ragged > 0, end, L)
    wait_before(PDL)
    code = tl.load(
        projected + token.to(tl.int64)[:, None] * W + (W - H) + h[None, :], mask=(h < H)[None, :], other=0
    ).to(tl.float32)
    dt = tl.minimum(tl.maximum(softplus(code * s[None, :] + b[None, :]), dt_low), dt_high)
    live = (t < L) & (t < end)
    dt = tl.where(live[:, None], dt, 0.0)
    sums = tl.cumsum(dt * (a * _LOG2E)[None, :], axis=0)
    weight = tl.math.log2(tl.maximum(tl.math.div_rn(dt, tl.broadcast_to(top[None, :], dt.shape)), 1.0e-37))
    out = ((row * H + h) * CHUNKS + chunk).to(tl.int64)[None, :] * Q + q[:, None]
    tl.store(decay + out, sums, mask=(h < H)[None, :])
    tl.store(entry + out, tl.where(dt > 0.0, sums - weight, _NEVER), mask=(h < H)[None, :])
    given = conv + token.to(tl.int64)[:, None] * XW + (XW - GN2) + n[None, :]
    kept = columns + (row * CHUNKS * Q + t).to(tl.int64)[:, None] * GN2 + n[None, :]
    values = tl.load(given, mask=(n < GN2)[None, :], other=0)
    tl.store(kept, values.to(tl.float16), mask=(n < GN2)[None, :])


def chunk_times(
    projected: Tensor,
    conv: Tensor,
    dt_scale: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    bound: Tensor,
    dt_limit: tuple[float, float],
    lengths: Tensor | None,
    decay: Tensor,
    entry: Tensor,
    columns: Tensor,
    *,
    pdl: bool = False,
) -> None:
    """Launch it.

    Args:
        projected: codes dt in the last H columns, int8 [Bt, L, W].
        conv: codes B and C in the last 2GN columns, int8 [Bt, L, E + 2GN].
        dt_scale: float32 [H].
        dt_bias: float32 [H].
        A: float32 [H], negative.
        bound: at least the largest dt, float32 [H].
        dt_limit: the least and the largest dt.
        lengths: real tokens of each row, int64 [Bt]; None: all.
        decay: float32 [Bt, H, chunks, Q].
        entry: float32 [Bt, H, chunks, Q].
        columns: the codes B and C as float16 [Bt, chunks Q, 2GN]; any behind the last token.
        pdl: overlap with the kernel before.
    """
    batch, heads, chunks, size = decay.shape
    width = columns.shape[2]
    parts = triton.cdiv(heads, _HEADS)
    chunk_times_kernel[(batch * chunks, parts)](
        projected,
        conv,
        dt_scale,
        dt_bias,
        A,
        bound,
        _no_lengths(projected.device) if lengths is None else lengths,
        decay,
        entry,
        columns,
        dt_limit[0],
        min(dt_limit[1], 3.0e38),
        projected.shape[1],
        chunks,
        int(lengths is not None),
        W=projected.shape[2],
        XW=conv.shape[2],
        H=heads,
        GN2=width,
        Q=size,
        HEADS=_HEADS,
        WIDTH=max(16, triton.next_power_of_2(triton.cdiv(width, parts))),
        PDL=pdl,
        num_warps=4,
        **({"launch_pdl": True} if pdl else {}),
    )


def chunk_times_reference(
    projected: Tensor,
    conv: Tensor,
    dt_scale: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    bound: Tensor,
    dt_limit: tuple[float, float],
    lengths: Tensor | None,
    decay: Tensor,
    entry: Tensor,
    columns: Tensor,
) -> None:
    """The definition, in plain PyTorch; arguments as `chunk_times`."""
    (batch, heads, chunks, size), length = decay.shape, projected.shape[1]
    dt = torch.nn.functional.softplus(projected[..., -heads:] * dt_scale + dt_bias).clamp(*dt_limit)
    if lengths is not None:
        dt = dt * (torch.arange(length, device=dt.device) < lengths[:, None])[..., None]
    dt = torch.nn.functional.pad(dt, (0, 0, 0, chunks * size - length)).view(batch, chunks, size, heads)
    sums = (dt.double() * A).cumsum(2) / torch.tensor(2.0).log()
    decay.copy_(sums.permute(0, 3, 1, 2))
    never = torch.tensor(float(_NEVER.value), dtype=torch.float64, device=dt.device)
    entry.copy_(torch.where(dt > 0, sums - (dt.double() / bound).log2(), never).permute(0, 3, 1, 2))
    columns[:, :length] = conv[..., -columns.shape[2] :].half()


__all__ = ["chunk_times", "chunk_times_kernel", "chunk_times_reference"]
