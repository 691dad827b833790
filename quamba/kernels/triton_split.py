# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, no-untyped-call"
# (What Triton compiles has no Python types.)
"""Rows of floats as bytes for the integer dot product, with the norm before in the same launch.

    x = r, or RMSNorm(r) w
    u = max|x| / 32512 of 32 neighbours        round(x / u) = 256 h + l        h in [-127, 127], l in [-128, 127]

An int32 holds four h or l, of the even or of the odd columns of eight neighbours: they meet the low and the high codes
of four bytes of a 4-bit weight. x is off by half a unit at most.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from quamba.kernels.triton_common import wait_before

# Neighbours that share a unit.
NEIGHBOURS = 32
_LARGEST = 32512.0


@triton.jit
def _packed(codes):
    """int32 [n, 4, 4] in [-128, 127] to int32 [n, 4], the first in the lowest byte."""
    shifts = tl.arange(0, 4) * 8
    return tl.sum((codes & 0xFF) << shifts[None, None, :], axis=2)


@triton.jit
def _store(target, x, inverse, live, K8):
    # 1.5 * 2^23 rounds, half to even.
    v = ((x * inverse + 12582912.0) - 12582912.0).to(tl.int32)
    h = (v + 128) >> 8
    tl.store(target, _packed(h), mask=live)
    tl.store(target + 2 * K8, _packed(v - (h << 8)), mask=live)


@triton.jit
def store_split(words, scale, values, quads, K8):
    """Bytes and units of 32 neighbours each, of a row: values float32 [n, 4, 4, 2], `quads` says which, int32 [n]."""
    largest = tl.max(tl.max(tl.max(tl.abs(values), axis=3), axis=2), axis=1)
    # What is smaller is nothing beside anything.
    largest = tl.maximum(largest, 1e-30)
    tl.store(scale + quads, largest / 32512.0, mask=quads * 4 < K8)
    inverse = (32512.0 / largest)[:, None, None]
    even, odd = tl.split(values)
    at = quads[:, None] * 4 + tl.arange(0, 4)[None, :]
    _store(words + at, even, inverse, at < K8, K8)
    _store(words + K8 + at, odd, inverse, at < K8, K8)


@triton.jit
def split_kernel(
    x,
    norm_weight,
    words,
    scale,
    x_stride,
    eps,
    K8: tl.constexpr,
    QUADS: tl.constexpr,
    NORM: tl.constexpr,
    PDL: tl.constexpr,
):
    """One row; QUADS is K / 32, made a power of two."""
    quads = tl.arange(0, QUADS)
    place = (
        quads[:, None, None, None] * 32
        + tl.arange(0, 4)[None, :, None, None] * 8
        + tl.arange(0, 4)[None, None, :, None] * 2
        + tl.arange(0, 2)[None, None, None, :]
    )
    live = place < 8 * K8
    if NORM:
        gain = tl.load(norm_weight + place, mask=live, other=0.0)
    row = tl.program_id(0)
    wait_before(PDL)
    values = tl.load(x + row.to(tl.int64) * x_stride + place, mask=live, other=0.0).to(tl.float32)
    if NORM:
        squares = tl.sum(tl.sum(tl.sum(tl.sum(values * values, axis=3), axis=2), axis=1), axis=0)
        values = values * tl.rsqrt(squares / (8 * K8) + eps) * gain
    store_split(words + row * (4 * K8), scale + row * (K8 // 4), values, quads, K8)


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Rows as bytes.

    Attributes:
        words: int32 [Bt, 4, K / 8]: h of even columns, h of odd ones, l of even, l of odd.
        scale: the units, float32 [Bt, K / 32].
    """

    words: Tensor
    scale: Tensor

    @classmethod
    def empty(cls, rows: int, columns: int, device: torch.device) -> "Split":
        """Room for rows of a multiple of 32 columns."""
        words = torch.empty(rows, 4, columns // 8, dtype=torch.int32, device=device)
        return cls(words, torch.empty(rows, columns // NEIGHBOURS, device=device))


def split(x: Tensor, out: Split, *, norm: tuple[Tensor, float] | None = None, pdl: bool = False) -> None:
    """Launch it.

    Args:
        x: float32, float16 or bfloat16 [Bt, K], K a multiple of 32; rows may lie apart.
        out: what it fills.
        norm: the norm's weight float32 [K] and eps.
        pdl: overlap with the kernel before.
    """
    rows, columns = x.shape
    weight, eps = (out.scale, 0.0) if norm is None else norm
    split_kernel[(rows,)](
        x,
        weight,
        out.words,
        out.scale,
        x.stride(0),
        eps,
        K8=columns // 8,
        QUADS=triton.next_power_of_2(columns // NEIGHBOURS),
        NORM=norm is not None,
        PDL=pdl,
        num_warps=4,
        enable_fp_fusion=False,
        **({"launch_pdl": True} if pdl else {}),
    )


def split_reference(x: Tensor, out: Split, *, norm: tuple[Tensor, float] | None = None) -> None:
    """The definition, in plain PyTorch; arguments as `split`."""
    x = x.float()
    if norm is not None:
        x = torch.nn.functional.rms_norm(x, norm[0].shape, *norm)
    rows, columns = x.shape
    largest = x.view(rows, -1, NEIGHBOURS).abs().amax(-1).clamp(min=1e-30)
    out.scale.copy_(largest / _LARGEST)
    integers = (x.view(rows, -1, NEIGHBOURS) * (_LARGEST / largest)[..., None]).round().int()
    high = (integers + 128) >> 8
    for place, part in ((0, high), (2, integers - (high << 8))):
        both = part.to(torch.int8).view(rows, columns // 8, 4, 2)
        for odd in (0, 1):
            out.words[:, place + odd] = both[..., odd].contiguous().view(torch.int32)[..., 0]


def joined(x: Split) -> Tensor:
    """The floats that bytes and units stand for, float32 [Bt, K]."""
    rows, _, words = x.words.shape
    parts = x.words.contiguous().view(torch.int8).view(rows, 4, words, 4).float()
    integers = torch.stack((256 * parts[:, 0] + parts[:, 2], 256 * parts[:, 1] + parts[:, 3]), -1)
    return (integers.view(rows, -1, NEIGHBOURS) * x.scale[..., None]).view(rows, -1)


__all__ = ["NEIGHBOURS", "Split", "joined", "split", "split_kernel", "split_reference", "store_split"]
