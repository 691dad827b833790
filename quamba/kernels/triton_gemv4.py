# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, var-annotated, attr-defined, unreachable"
# (What Triton compiles has no Python types.)
"""A few rows times a weight of 4-bit codes, which meet 8-bit activations as integers; as `triton_gemv` otherwise.

    W_nk = clamp(round(c f_ng), -128, 127)    c the code of column k, g its group, f the group's factor

A group's integers are kept beside its codes: a byte permutation looks four codes up at once in a table of eight, and
gives the sign of what it finds, mostly 0, for codes that the other table has. One has 1..7 and -8, the other the
magnitudes of 0..-7, which are subtracted; -7 shares a place with -8, whose sign it meets, and makes up for it.

`pack` repacks the canonical form once: the low and the high half of a 32-bit word hold four neighbouring columns each,
of the first and of the second half of a row. Four words of a row lie beside those of the next row: a thread has a row
for itself, and the activations are the same for all threads that are side by side.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.convolution import Convolution, Past
from quamba.kernels.triton_common import convolve_past, dot4, wait_before
from quamba.kernels.triton_few import finish, normed
from quamba.kernels.triton_gemv import ring_and_weights

# 128 columns share a scale.
GROUP = 128


@triton.jit
def _high_bytes(near, far, DEVICE: tl.constexpr):
    """The high word of the 64 bits `far`, `near`, shifted up a byte."""
    if DEVICE:
        return tl.inline_asm_elementwise(
            "prmt.b32 $0, $1, $2, 0x6543;", "=r,r,r", [near, far], dtype=tl.int32, is_pure=True, pack=1
        )
    return (far << 8) | ((near >> 24) & 0xFF)


@triton.jit
def _chosen(low, high, codes, DEVICE: tl.constexpr):
    """Bytes 0..7 of `low` and `high` that four 3-bit codes of the low half of `codes` choose; where the bit above is
    set, the byte's sign eight times."""
    if DEVICE:
        return tl.inline_asm_elementwise(
            "prmt.b32 $0, $1, $2, $3;", "=r,r,r,r", [low, high, codes], dtype=tl.int32, is_pure=True, pack=1
        )
    both = (high.to(tl.int64) << 32) | (low.to(tl.int64) & 0xFFFFFFFF)
    out = tl.zeros(codes.shape, dtype=tl.int64)
    for i in tl.static_range(4):
        nibble = ((codes >> (4 * i)) & 0xF).to(tl.int64)
        byte = (both >> (8 * (nibble & 7))) & 0xFF
        out |= tl.where(nibble < 8, byte, (byte >> 7) * 0xFF) << (8 * i)
    return out.to(tl.int32)


@triton.jit
def gemv4_kernel(
    x,
    w,
    tables,
    scale,
    bias,
    norm_weight,
    in_scale,
    scratch,
    out,
    ring,
    position,
    conv_weight,
    conv_factor,
    conv_bias,
    conv_scale,
    x_stride,
    eps,
    N: tl.constexpr,
    K8: tl.constexpr,
    BLOCK: tl.constexpr,
    SLICES: tl.constexpr,
    PIECE: tl.constexpr,
    TAPS: tl.constexpr,
    FIRST: tl.constexpr,
    CHANNELS: tl.constexpr,
    NORM: tl.constexpr,
    BIAS: tl.constexpr,
    OUT: tl.constexpr,
    DEVICE: tl.constexpr,
    PDL: tl.constexpr,
):
    """Rows BLOCK * program_id(0).. of w, times row program_id(1) of x.

    A thread has a row, and of its octets of words a slice: what is looked up for a group serves several of them.
    """
    OCTETS: tl.constexpr = K8 // 8
    EACH: tl.constexpr = (OCTETS + SLICES - 1) // SLICES
    EVEN: tl.constexpr = OCTETS % SLICES == 0
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = rows < N
    # Beyond the last row it is read again, which costs no mask, and not written.
    near_rows = tl.minimum(rows, N - 1)[None, :, None]
    first = (tl.arange(0, SLICES) * EACH)[:, None, None]
    four = tl.arange(0, 4)[None, None, :]
    quads = w + (first * (2 * N) + near_rows).to(tl.int64) * 4 + four
    weights = ()
    found = ()
    for i in tl.static_range(EACH):
        for quad in tl.static_range(2):
            if EVEN:
                tile = tl.load(quads + (2 * i + quad) * (4 * N))
            else:
                tile = tl.load(quads + (2 * i + quad) * (4 * N), mask=first + i < OCTETS, other=0)
            weights = weights + (tile,)  # noqa: RUF005  # Triton has no *
        # Four octets are a group in either half.
        at = ((first + i) // 4 * N + near_rows).to(tl.int64) * 4 + four
        if EVEN:
            group = tl.load(tables + at)
        else:
            group = tl.load(tables + at, mask=first + i < OCTETS, other=0)
        found = found + (group,)  # noqa: RUF005
    factor = tl.load(scale + rows, mask=there, other=0.0)
    if BIAS:
        shift = tl.load(bias + rows, mask=there, other=0.0)
    row = tl.program_id(1)
    target = out + row * N + rows
    kept, slot, past, before = target, 0, (), factor
    if TAPS > 0:
        t = tl.load(position)
        channels = rows - FIRST
        conv = (channels >= 0) & (channels < CHANNELS)
        ring += row * (TAPS * CHANNELS)
        kept, slot = ring + channels, (t % TAPS) * CHANNELS
        of_past = convolve_past(
            ring, conv_weight, conv_factor, conv_bias, conv_scale, channels, conv, t, CHANNELS, TAPS
        )
        past = of_past + (conv,)  # noqa: RUF005
    wait_before(PDL)
    if OUT == 2:
        before = tl.load(target, mask=there, other=0.0)
    codes = x + row * x_stride
    if NORM:
        own = scratch + (row * tl.num_programs(0) + tl.program_id(0)) * (2 * K8)
        normed(codes, norm_weight, in_scale, eps, own, 2 * K8, PIECE)
        codes = own
    plus = tl.zeros([SLICES, BLOCK, 4], dtype=tl.int32)
    minus = tl.zeros([SLICES, BLOCK, 4], dtype=tl.int32)
    # Of all rows, so that each thread reads what it needs itself.
    own_codes = codes + first * 8 + tl.zeros([1, BLOCK, 1], dtype=tl.int32) + four
    for i in tl.static_range(EACH):
        near_of_both, far_of_both = tl.split(tl.reshape(found[i], [SLICES, BLOCK, 2, 2]))
        nears, fars = tl.split(near_of_both), tl.split(far_of_both)
        for half in tl.static_range(2):
            near, far = nears[half], fars[half]
            # 1 less for -7 where the sign of -8 stands in the other table.
            rest = _high_bytes(near, far, DEVICE) + ((far >> 31) << 24)
            low = tl.broadcast_to(near[:, :, None], [SLICES, BLOCK, 4])
            high = tl.broadcast_to(far[:, :, None], [SLICES, BLOCK, 4])
            low_minus = tl.broadcast_to((near << 8)[:, :, None], [SLICES, BLOCK, 4])
            high_minus = tl.broadcast_to(rest[:, :, None], [SLICES, BLOCK, 4])
            for quad in tl.static_range(2):
                at = half * K8 + (2 * i + quad) * 4
                if EVEN:
                    given_codes = tl.load(own_codes + at)
                else:
                    given_codes = tl.load(own_codes + at, mask=first + i < OCTETS, other=0)
                chosen = weights[2 * i + quad] >> (16 * half)
                plus = dot4(_chosen(low, high, chosen, DEVICE), given_codes, plus, DEVICE)
                minus = dot4(_chosen(low_minus, high_minus, chosen ^ 0x8888, DEVICE), given_codes, minus, DEVICE)
    total = tl.sum(tl.sum(plus - minus, axis=2), axis=0)
    y = total.to(tl.float32) * factor
    if BIAS:
        y += shift
    finish(y, before, past, kept, target, slot, there, OUT, TAPS)


@dataclass(frozen=True, slots=True, eq=False)
class Packed4:
    """A weight as the kernel reads it: codes int32 [K / 32, N, 4], tables int32 [K / 256, N, 4]: the table's
    low and high word, of a group of the first half of a row and of one of the second."""

    codes: Tensor
    tables: Tensor


def pack(codes: Tensor, factors: Tensor) -> Packed4 | None:
    """From the codes int8 [N, K] and the groups' factors float [N, K / 128].

    Returns:
        None where it has no such form: K is no multiple of 256, or a group's integers are of a kind that none has whose
        weights matter (7 f above 127, or 0 where 8 f is 1).
    """
    rows, inner = codes.shape
    if inner % (2 * GROUP) or factors.shape[1] * GROUP != inner:
        return None
    device = codes.device
    steps = torch.arange(1, 9, device=device)
    values = (factors.float()[:, :, None] * steps).round().clamp(max=128).long()
    if bool(((values[:, :, 6] > 127) | ((values[:, :, 6] == 0) & (values[:, :, 7] > 0))).any()):
        return None
    values[:, :, 7] = -values[:, :, 7] & 0xFF
    tables = (values << (8 * (steps - 1))).sum(-1)
    # 1..7 and -8 look into the one table, 0..-7 into the other.
    places = torch.where(codes > 0, codes - 1, torch.where(codes == -8, 7, 8 - codes)).int()
    words = (places.view(rows, 2, inner // 8, 4) << (4 * torch.arange(4, device=device)).int()).sum(-1).int()
    joined = (words[:, 0] | (words[:, 1] << 16)).view(rows, inner // 32, 4)
    # [N, half, group, word] to [group, N, half, word]
    sides = tables.contiguous().view(torch.int32).view(rows, 2, inner // (2 * GROUP), 2).permute(2, 0, 1, 3)
    return Packed4(joined.transpose(0, 1).contiguous(), sides.reshape(-1, rows, 4).contiguous())


def gemv4(
    x: Tensor,
    w: Packed4,
    scale: Tensor,
    bias: Tensor | None,
    out: Tensor,
    *,
    kind: int,
    norm: tuple[Tensor, Tensor, float] | None = None,
    conv: tuple[Convolution, Past] | None = None,
    block: int = 16,
    warps: int = 8,
    registers: int | None = None,
    device: bool = True,
    pdl: bool = False,
) -> None:
    """Launch it; arguments as `quamba.kernels.triton_gemv.gemv`, but for the weight."""
    quads, rows, _ = w.codes.shape
    norm_weight, in_scale, eps = (scale, scale, 0.0) if norm is None else norm
    programs = triton.cdiv(rows, block)
    scratch = x
    if norm is None:
        x = x.view(torch.int32)
    else:
        scratch = torch.empty(len(x), programs, quads * 8, dtype=torch.int32, device=x.device)
    gemv4_kernel[(programs, len(x))](
        x,
        w.codes,
        w.tables,
        scale,
        scale if bias is None else bias,
        norm_weight,
        in_scale,
        scratch,
        out,
        *ring_and_weights(conv, scale),
        x.stride(0),
        eps,
        N=rows,
        K8=4 * quads,
        BLOCK=block,
        SLICES=max(1, 32 * warps // block),
        PIECE=32 * warps,
        TAPS=0 if conv is None else len(conv[0].weight),
        FIRST=0 if conv is None else conv[0].first,
        CHANNELS=0 if conv is None else conv[0].weight.shape[1],
        NORM=norm is not None,
        BIAS=bias is not None,
        OUT=kind,
        DEVICE=device,
        PDL=pdl,
        num_warps=warps,
        enable_fp_fusion=False,
        **({} if registers is None else {"maxnreg": registers}),
        **({"launch_pdl": True} if pdl else {}),
    )


def unpack(w: Packed4) -> Tensor:
    """The integers that codes and tables stand for, int8 [N, K]: what `gemv` multiplies with."""
    rows, device = w.tables.shape[1], w.codes.device
    codes = w.codes.transpose(0, 1).flatten(1)
    halves = torch.stack((codes & 0xFFFF, (codes >> 16) & 0xFFFF), 1)
    places = ((halves[..., None] >> (4 * torch.arange(4, device=device))) & 0xF).view(rows, -1, GROUP).long()
    tables = w.tables.view(-1, rows, 2, 2).permute(1, 2, 0, 3).contiguous().view(torch.int64).view(rows, -1)
    values = (tables[..., None] >> (8 * torch.arange(8, device=device))) & 0xFF
    one = values.clone()
    one[..., 7] -= 256 * (one[..., 7] > 0)
    other = torch.nn.functional.pad(-values[..., :7], (1, 0))
    return torch.cat((one, other), -1).gather(2, places).view(rows, -1).to(torch.int8)


__all__ = ["GROUP", "Packed4", "gemv4", "gemv4_kernel", "pack", "unpack"]
