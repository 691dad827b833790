"""A weight of 4-bit codes as `quamba.kernels.triton_gemv4` reads it, repacked once from the canonical form.

    W_nk = clamp(round(c f_ng), -128, 127)    c the code of column k, g its group, f the group's factor

A group's integers are kept beside its codes: a byte permutation looks four codes up at once in a table of eight, and
gives the sign of what it finds, mostly 0, for codes that the other table has. One has 1..7 and -8, the other the
magnitudes of -1..-6, 0 and -7, which are subtracted, so that it is nearly the first one; -7 shares a place with -8,
whose sign it meets, and makes up for it.

The low halves of four 32-bit words hold 16 neighbouring columns, the high halves the next 16, so that a thread reads
codes and activations alike 16 bytes at a time.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# 128 columns share a scale.
GROUP = 128
# Of the codes -8..7: in the one table (0..7) or in the other (8..15).
_PLACES = (7, 15, 13, 12, 11, 10, 9, 8, 14, 0, 1, 2, 3, 4, 5, 6)


@dataclass(frozen=True, slots=True, eq=False)
class Packed4:
    """A weight as the kernel reads it: codes int32 [N, K / 8], tables int64 [N, K / 128]."""

    codes: Tensor
    tables: Tensor


def pack(codes: Tensor, factors: Tensor) -> Packed4 | None:
    """From the codes int8 [N, K] and the groups' factors float [N, K / 128].

    Returns:
        None where it has no such form: K is no multiple of 128, or a group's integers are of a kind that none has whose
        weights matter (7 f above 127, or 0 where 8 f is 1).
    """
    rows, inner = codes.shape
    if inner % GROUP or factors.shape[1] * GROUP != inner:
        return None
    device = codes.device
    steps = torch.arange(1, 9, device=device)
    values = (factors.float()[:, :, None] * steps).round().clamp(max=128).long()
    if bool(((values[:, :, 6] > 127) | ((values[:, :, 6] == 0) & (values[:, :, 7] > 0))).any()):
        return None
    # Where all is 0 there is no sign of -8 either: every code looks up a 0.
    zero = (values[:, :, 7] == 0).repeat_interleave(GROUP, 1)
    values[:, :, 7] = -values[:, :, 7] & 0xFF
    tables = (values << (8 * (steps - 1))).sum(-1)
    places = torch.tensor(_PLACES, dtype=torch.int32, device=device)[codes.int() + 8].masked_fill_(zero, 0)
    # [row, quad, half, word, column of the four]
    halves = (places.view(rows, -1, 2, 4, 4) << (4 * torch.arange(4, device=device)).int()).sum(-1).int()
    words = halves[:, :, 0] | (halves[:, :, 1] << 16)
    return Packed4(words.view(rows, -1), tables.contiguous())


def unpack(w: Packed4) -> Tensor:
    """The integers that codes and tables stand for, int8 [N, K]: what `gemv` multiplies with."""
    rows, device = len(w.codes), w.codes.device
    quads = w.codes.view(rows, -1, 4)
    halves = torch.stack((quads & 0xFFFF, (quads >> 16) & 0xFFFF), 2)
    places = ((halves[..., None] >> (4 * torch.arange(4, device=device))) & 0xF).view(rows, -1, GROUP).long()
    values = (w.tables[..., None] >> (8 * torch.arange(8, device=device))) & 0xFF
    one = values.clone()
    one[..., 7] -= 256 * (one[..., 7] > 0)
    nothing = torch.zeros_like(values[..., :1])
    other = -torch.cat((values[..., :6], nothing, values[..., 6:7]), -1)
    return torch.cat((one, other), -1).gather(2, places).view(rows, -1).to(torch.int8)


__all__ = ["GROUP", "Packed4", "pack", "unpack"]
