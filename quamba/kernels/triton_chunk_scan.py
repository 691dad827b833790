# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# (What Triton compiles has no Python types.)
"""The Mamba-2 recurrence of a prompt's codes on the tensor cores (SSD; arXiv 2405.21060, section 6).

    S_t = exp(dt_t A) S_{t-1} + dt_t x_t B_t^T,  y_t = S_t C_t + D x_t

A program goes through the chunks of a head and keeps S in registers, in units in which x and B are codes. One side of
each product is codes, which float16 holds; the other is rounded to float16. So is y. All are scaled by what bounds them
whatever the tokens are, so that nothing overflows. Channels go back to the order that they had before heads were
reordered. The gate comes behind it: `quamba.kernels.triton_rotate`.
"""

import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.scaled_chunk_scan import ChunkScan
from quamba.kernels.triton_common import half_codes, only_if, power_of_two, round_codes, wait_before


@triton.jit
def _ratio(state_table, state_rows, unit, e, n, N: tl.constexpr, ONE_SCALE: tl.constexpr):
    """What a code of the state stands for, in units: float32 [N, P]."""
    if ONE_SCALE:
        s = tl.load(state_table + n)[:, None]
    else:
        s = tl.load(state_table + tl.load(state_rows + e).to(tl.int32)[None, :] * N + n[:, None])
    return s / tl.load(unit + e)[None, :]


@triton.jit(do_not_specialize=["L", "CHUNKS", "begun"])
def chunk_scan_kernel(
    conv,
    decay,
    entry,
    columns,
    unit,
    skip,
    power,
    rest,
    out_norm,
    state_table,
    state_rows,
    old_head,
    old_place,
    before,
    after,
    out,
    L,
    CHUNKS,
    begun,
    H: tl.constexpr,
    P: tl.constexpr,
    G: tl.constexpr,
    N: tl.constexpr,
    XW: tl.constexpr,
    Q: tl.constexpr,
    PARTS: tl.constexpr,
    FIXED: tl.constexpr,
    ONE_SCALE: tl.constexpr,
    ORDERED: tl.constexpr,
    ALIKE: tl.constexpr,
    BOUNDED: tl.constexpr,
    DEVICE: tl.constexpr,
    PDL: tl.constexpr,
):
    """A part of the channels of a head of a row: programs go through the parts first, then heads."""
    part, head, row = tl.program_id(0) % PARTS, tl.program_id(0) // PARTS % H, tl.program_id(0) // (PARTS * H)
    group = head // (H // G)
    GN2: tl.constexpr = 2 * G * N
    # log2 of 2 / N: products of codes are at most 2^14 N, and 2^15 so.
    PART: tl.constexpr = 2 - N.bit_length()
    p, n, q = part * (P // PARTS) + tl.arange(0, P // PARTS), tl.arange(0, N), tl.arange(0, Q)
    e = head * P + p
    raised, lowered, given_norm = tl.load(power + head), tl.load(rest + head), tl.load(out_norm + head)
    back = (2.0 / N) / (tl.exp2(raised) * lowered)
    to = tl.load(old_head + head)
    place = p if ORDERED else tl.load(old_place + e).to(tl.int32)
    state = (row * H + head).to(tl.int64) * (P * N) + p[None, :] * N + n[:, None]
    wait_before(PDL)
    S = tl.load(before + state, mask=only_if(state >= 0, begun > 0), other=0).to(tl.float32)
    S *= _ratio(state_table, state_rows, unit, e, n, N, ONE_SCALE)
    times = (row * H + head).to(tl.int64) * (CHUNKS * Q)
    rows = columns + (row * CHUNKS * Q).to(tl.int64) * GN2 + group * N
    start = (row * L).to(tl.int64)
    x_rows, out_rows = conv + start * XW, out + start * (H * P) + to * P
    for chunk in range(FIXED or CHUNKS):
        t = chunk * Q + q
        token = tl.minimum(t, L - 1)
        x = half_codes(tl.load(x_rows + token[:, None] * XW + e[None, :]), DEVICE)
        here, now = rows + chunk * (Q * GN2), times + chunk * Q
        B = tl.load(here + (q[:, None] * GN2 + n[None, :]))
        C = tl.load(here + G * N + (q[:, None] * GN2 + n[None, :]))
        c, d, last = tl.load(decay + now + q), tl.load(entry + now + q), tl.load(decay + now + (Q - 1))
        given = (x.to(tl.float32) * power_of_two(last - d + raised, DEVICE)[:, None]).to(tl.float16)
        kept = (S if BOUNDED else S * lowered).to(tl.float16)
        y = tl.dot(C, kept) * (power_of_two(c, DEVICE) * back)[:, None]
        # Of t and not q: kept through the loop, the mask would take registers.
        apart = tl.where(t[:, None] >= t[None, :], (c + PART)[:, None] - d[None, :], -1.0e30)
        pairs = (tl.dot(C, tl.trans(B)) * power_of_two(apart, DEVICE)).to(tl.float16)
        y = tl.dot(pairs, x, y)
        S = tl.dot(tl.trans(B), given, S * power_of_two(last, DEVICE))
        if ALIKE:
            y += x.to(tl.float32) * tl.load(skip + head * P)
        else:
            y += x.to(tl.float32) * tl.load(skip + e)[None, :]
        tl.store(
            out_rows + token[:, None] * (H * P) + place[None, :],
            (y * given_norm).to(tl.float16),
            mask=(t < L)[:, None],
        )
    # Read again: kept, it would take the registers of a second state.
    tl.store(after + state, round_codes(S / _ratio(state_table, state_rows, unit, e, n, N, ONE_SCALE)).to(tl.int8))


def chunk_scan(
    scan: ChunkScan,
    conv: Tensor,
    decay: Tensor,
    entry: Tensor,
    columns: Tensor,
    before: Tensor | None,
    after: Tensor,
    out: Tensor,
    *,
    parts: int = 1,
    device: bool = True,
    pdl: bool = False,
) -> None:
    """Launch it, behind `quamba.kernels.triton_chunk_times.chunk_times`.

    Args:
        scan: the layer.
        conv: codes x in the first E columns, int8 [Bt, L, E + 2GN].
        decay: float32 [Bt, H, chunks, Q].
        entry: float32 [Bt, H, chunks, Q].
        columns: codes B and C, float16 [Bt, chunks Q, 2GN].
        before: the state, int8 [Bt, H, P, N]; None for zeros.
        after: the state behind the last token, int8 [Bt, H, P, N].
        out: y / gain, float16 [Bt, L, E].
        parts: in how many a head's channels are taken, by a program each: a power of two, of at least 16 channels.
        device: use the device's own instructions; false under the interpreter.
        pdl: overlap with the kernel before.
    """
    step = scan.step
    _, H, P, G, N = step.sizes
    batch, _, chunks, size = decay.shape
    chunk_scan_kernel[(batch * H * parts,)](
        conv,
        decay,
        entry,
        columns,
        scan.unit,
        scan.skip,
        scan.power,
        scan.rest,
        scan.out_norm,
        step.state_table,
        step.state_rows,
        step.old_head,
        step.old_place,
        after if before is None else before,
        after,
        out,
        conv.shape[1],
        chunks,
        int(before is not None),
        H=H,
        P=P,
        G=G,
        N=N,
        XW=conv.shape[2],
        Q=size,
        PARTS=parts,
        # The interpreter knows no other bounds of a loop.
        FIXED=0 if device else chunks,
        ONE_SCALE=len(step.state_table) == 1,
        ORDERED=scan.ordered,
        ALIKE=scan.alike,
        BOUNDED=scan.bounded,
        DEVICE=device,
        PDL=pdl,
        num_warps=4,
        num_stages=2,
        **({"launch_pdl": True} if pdl else {}),
    )


__all__ = ["chunk_scan", "chunk_scan_kernel"]
