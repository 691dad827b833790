# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""The Mamba-2 recurrence of a prompt's codes on the tensor cores, with its gate (SSD; arXiv 2405.21060, section 6).

    S_t = exp(dt_t A) S_{t-1} + dt_t x_t B_t^T,  y_t = S_t C_t + D x_t
    v = y SiLU(z) w,  squares = sum (y SiLU(z))^2       (or of y alone, where the norm comes before the gate)
    out = v / size,  size: the power of two at or below a token's and head's largest |v|

A program goes through the chunks of a head and keeps S in registers, in units in which x and B are codes. One side of
each product is codes, which float16 holds; the other, rounded to float16, is scaled by what bounds it whatever the
tokens are, so that nothing overflows. Channels go back to the order that they had before heads were reordered.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.chunk_scan import chunk_scan as plain_chunk_scan
from quamba.kernels.triton_common import round_codes, wait_before
from quamba.kernels.triton_ssd_step import SSDStep

# Tokens of a chunk.
CHUNK = 64
_LOG2E = tl.constexpr(1.4426950408889634)
_EXPONENT = tl.constexpr(0x7F800000)


@triton.jit
def _ratio(state_table, state_rows, unit, e, n, N: tl.constexpr, ONE_SCALE: tl.constexpr):
    """What a code of the state stands for, in units: float32 [N, P]."""
    if ONE_SCALE:
        s = tl.load(state_table + n)[:, None]
    else:
        s = tl.load(state_table + tl.load(state_rows + e).to(tl.int32)[None, :] * N + n[:, None])
    return s / tl.load(unit + e)[None, :]


@triton.jit
def _silu(x):
    """x / (1 + exp(-x)), by the device's fast division."""
    return x / (1.0 + tl.exp2(x * -_LOG2E))


@triton.jit
def chunk_scan_kernel(
    projected,
    conv,
    decay,
    entry,
    columns,
    z_scale,
    unit,
    gain,
    skip,
    weight,
    state_norm,
    state_table,
    state_rows,
    old_head,
    old_place,
    before,
    after,
    out,
    sizes,
    squares,
    L,
    CHUNKS,
    H: tl.constexpr,
    P: tl.constexpr,
    G: tl.constexpr,
    N: tl.constexpr,
    W: tl.constexpr,
    XW: tl.constexpr,
    Q: tl.constexpr,
    FIXED: tl.constexpr,
    NORM_FIRST: tl.constexpr,
    ONE_SCALE: tl.constexpr,
    ORDERED: tl.constexpr,
    BEFORE: tl.constexpr,
    PDL: tl.constexpr,
):
    """Head program_id(0) % H of row program_id(0) / H."""
    head, row = tl.program_id(0) % H, tl.program_id(0) // H
    group = head // (H // G)
    GN2: tl.constexpr = 2 * G * N
    p, n, q = tl.arange(0, P), tl.arange(0, N), tl.arange(0, Q)
    e = head * P + p
    norm = tl.load(state_norm + head)
    # Products of codes are at most 2^14 N, and 2^15 so.
    part = 2.0 / N
    back = part / norm
    to = tl.load(old_head + head)
    place = p if ORDERED else tl.load(old_place + e).to(tl.int32)
    state = (row * H + head).to(tl.int64) * (P * N) + p[None, :] * N + n[:, None]
    wait_before(PDL)
    S = tl.zeros([N, P], dtype=tl.float32)
    if BEFORE:
        S += tl.load(before + state).to(tl.float32) * _ratio(state_table, state_rows, unit, e, n, N, ONE_SCALE)
    times = (row * H + head).to(tl.int64) * (CHUNKS * Q) + q
    rows = columns + (row * CHUNKS * Q).to(tl.int64) * GN2 + group * N
    start = (row * L).to(tl.int64)
    x_rows, z_rows, out_rows = conv + start * XW, projected + start * W, out + start * (H * P) + to * P
    size_rows, square_rows = sizes + start * H + to, squares + start * H + to
    for chunk in range(FIXED or CHUNKS):
        t = chunk * Q + q
        token = tl.minimum(t, L - 1)
        x = tl.load(x_rows + token[:, None] * XW + e[None, :]).to(tl.float16)
        z = tl.load(z_rows + token[:, None] * W + e[None, :])
        here = rows + chunk * (Q * GN2)
        B = tl.load(here + (q[:, None] * GN2 + n[None, :]))
        C = tl.load(here + G * N + (q[:, None] * GN2 + n[None, :]))
        c, d = tl.load(decay + times + chunk * Q), tl.load(entry + times + chunk * Q)
        last = tl.sum(tl.where(q == Q - 1, c, 0.0), axis=0)
        y = tl.dot(C, (S * norm).to(tl.float16)) * (tl.exp2(c) * back)[:, None]
        # Of t and not q: kept through the loop, the mask would take registers.
        apart = tl.where(t[:, None] >= t[None, :], c[:, None] - d[None, :], -1.0e30)
        pairs = (tl.dot(C, tl.trans(B)) * (tl.exp2(apart) * part)).to(tl.float16)
        y = tl.dot(pairs, x, y)
        S = tl.dot(tl.trans(B), (x * tl.exp2(last - d)[:, None]).to(tl.float16), S * tl.exp2(last))
        # Read in each chunk, not kept: there are no registers to spare.
        y = y * tl.load(gain + e)[None, :] + x.to(tl.float32) * tl.load(skip + e)[None, :]
        gated = y * _silu(z.to(tl.float32) * tl.load(z_scale + e)[None, :])
        v = gated * tl.load(weight + e)[None, :]
        top = tl.max(tl.abs(v), axis=1)
        exponent = tl.maximum(top, 1.0e-30).to(tl.int32, bitcast=True) & _EXPONENT
        v = v * ((254 << 23) - exponent).to(tl.float32, bitcast=True)[:, None]
        live = t < L
        tl.store(out_rows + token[:, None] * (H * P) + place[None, :], v.to(tl.float16), mask=live[:, None])
        tl.store(size_rows + token * H, exponent.to(tl.float32, bitcast=True), mask=live)
        normed = y if NORM_FIRST else gated
        tl.store(square_rows + token * H, tl.sum(normed * normed, axis=1), mask=live)
    # Read again: kept, it would take the registers of a second state.
    tl.store(after + state, round_codes(S / _ratio(state_table, state_rows, unit, e, n, N, ONE_SCALE)).to(tl.int8))


@dataclass(frozen=True, slots=True)
class ChunkScan:
    """What the kernel reads of one layer; all on one device.

    Attributes:
        step: the recurrence, as a step has it.
        bound: at least the largest dt, float32 [H].
        unit: what the state is counted in, float32 [E].
        gain: of what the tensor cores sum up, float32 [E].
        skip: D in units of x's codes, float32 [E].
        state_norm: a power of two that keeps the state within float16, float32 [H].
        ordered: channels are where they were.
    """

    step: SSDStep
    bound: Tensor
    unit: Tensor
    gain: Tensor
    skip: Tensor
    state_norm: Tensor
    ordered: bool

    @classmethod
    def of(cls, step: SSDStep) -> "ChunkScan | None":
        """Of a layer's step; None where B or C have more than one scale in a group, or sizes do not fit."""
        E, H, P, G, N = step.sizes
        if P < 16 or N < 16 or P * N > 1 << 14:
            return None
        scales = step.projected_scale[2 * E : 2 * E + 2 * G * N].view(2, G, N)
        if bool((scales != scales[..., :1]).any()):
            return None
        b, c = scales[..., 0].repeat_interleave(H // G, 1)
        x = step.projected_scale[E : 2 * E].view(H, P)
        dt_scale = step.projected_scale[2 * (E + G * N) :]
        bound = torch.nn.functional.softplus(128 * dt_scale + step.dt_bias).clamp(*step.dt_limit)
        # Not below what rounds up.
        bound = (bound * 1.001).clamp(min=1e-30)
        unit = x * (b * bound)[:, None]
        # What a long text of the largest codes adds up to: sum of dt exp(A t) is at most dt + 1 / |A|.
        sums = (1 << 14) * (1 - 1 / (step.A * bound))
        scale = step.state_table[step.state_rows.int()].view(H, P, N)
        at_first = 128 * (scale / unit[..., None]).amax((1, 2))
        norm = torch.exp2((32768 / (sums + at_first)).log2().floor())
        return cls(
            step=step,
            bound=bound,
            unit=unit.flatten(),
            gain=(unit * c[:, None] * (N / 2)).flatten(),
            skip=step.D * x.flatten(),
            state_norm=norm.clamp(min=1e-30),
            ordered=bool((step.old_place.view(H, P) == torch.arange(P, device=x.device)).all()),
        )


def chunk_scan(
    scan: ChunkScan,
    projected: Tensor,
    conv: Tensor,
    decay: Tensor,
    entry: Tensor,
    columns: Tensor,
    before: Tensor | None,
    after: Tensor,
    out: Tensor,
    sizes: Tensor,
    squares: Tensor,
    *,
    warps: int = 4,
    stages: int = 2,
    pdl: bool = False,
) -> None:
    """Launch it, behind `quamba.kernels.triton_chunk_times.chunk_times`.

    Args:
        scan: the layer.
        projected: codes z in the first E columns, int8 [Bt, L, 2E + 2GN + H].
        conv: codes x in the first E columns, int8 [Bt, L, E + 2GN].
        decay: float32 [Bt, H, chunks, Q].
        entry: float32 [Bt, H, chunks, Q].
        columns: codes B and C, float16 [Bt, chunks Q, 2GN].
        before: the state, int8 [Bt, H, P, N]; None for zeros.
        after: the state behind the last token, int8 [Bt, H, P, N].
        out: float16 [Bt, L, E].
        sizes: float32 [Bt, L, H].
        squares: float32 [Bt, L, H].
        warps: of a program.
        stages: chunks on their way at once.
        pdl: overlap with the kernel before.
    """
    step = scan.step
    _, H, P, G, N = step.sizes
    batch, _, chunks, size = decay.shape
    chunk_scan_kernel[(batch * H,)](
        projected,
        conv,
        decay,
        entry,
        columns,
        step.projected_scale,
        scan.unit,
        scan.gain,
        scan.skip,
        step.norm_weight,
        scan.state_norm,
        step.state_table,
        step.state_rows,
        step.old_head,
        step.old_place,
        after if before is None else before,
        after,
        out,
        sizes,
        squares,
        projected.shape[1],
        chunks,
        H=H,
        P=P,
        G=G,
        N=N,
        W=projected.shape[2],
        XW=conv.shape[2],
        Q=size,
        # The interpreter knows no other bounds of a loop.
        FIXED=chunks if triton.knobs.runtime.interpret else 0,
        NORM_FIRST=step.norm_first,
        ONE_SCALE=len(step.state_table) == 1,
        ORDERED=scan.ordered,
        BEFORE=before is not None,
        PDL=pdl,
        num_warps=warps,
        num_stages=stages,
        **({"launch_pdl": True} if pdl else {}),
    )


def chunk_scan_reference(
    step: SSDStep,
    projected: Tensor,
    conv: Tensor,
    lengths: Tensor | None,
    before: Tensor | None,
    after: Tensor,
    out: Tensor,
    squares: Tensor,
) -> None:
    """The definition, in plain PyTorch, from the codes that the times are made of too; `out` is v in float32.

    Args:
        step: the layer.
        projected: codes z and dt in their columns, int8 [Bt, L, 2E + 2GN + H].
        conv: codes x, B, C behind the convolution, int8 [Bt, L, E + 2GN].
        lengths: real tokens of each row, int64 [Bt]; None: all. Others leave the state as it is.
        before: the state, int8 [Bt, H, P, N]; None for zeros.
        after: the state behind the last token, int8 [Bt, H, P, N].
        out: float32 [Bt, L, E].
        squares: float32 [Bt, L, H].
    """
    E, H, P, G, N = step.sizes
    batch, length, _ = projected.shape
    values = conv * step.projected_scale[E : 2 * (E + G * N)]
    x = values[..., :E].reshape(batch, length, H, P)
    B, C = (values[..., E + i * G * N : E + (i + 1) * G * N].reshape(batch, length, G, N) for i in (0, 1))
    dt = projected[..., 2 * (E + G * N) :] * step.projected_scale[2 * (E + G * N) :]
    dt = torch.nn.functional.softplus(dt + step.dt_bias).clamp(*step.dt_limit)
    if lengths is not None:
        dt = dt * (torch.arange(length, device=dt.device) < lengths[:, None])[..., None]
    scale = step.state_table[step.state_rows.int()].view(H, P, N)
    state = None if before is None else before * scale
    result = plain_chunk_scan(x, dt, step.A, B, C, step.D.view(H, P), state=state)
    after.copy_((result.state / scale).round().clamp(-128, 127))
    y = result.y
    gated = y * torch.nn.functional.silu(projected[..., :E] * step.projected_scale[:E]).view(y.shape)
    old = step.old_head.long()
    squares[..., old] = (y if step.norm_first else gated).square().sum(-1)
    places = old.repeat_interleave(P) * P + step.old_place.long()
    out[..., places] = (gated * step.norm_weight.view(H, P)).flatten(-2)


__all__ = ["CHUNK", "ChunkScan", "chunk_scan", "chunk_scan_kernel", "chunk_scan_reference"]
