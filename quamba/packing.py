"""Codes of 4 bits, two to a byte: the canonical layout of files and memory, row-major whatever kernel reads it."""

import torch
from torch import Tensor

INT4_MIN, INT4_MAX = -8, 7


def pack_int4(codes: Tensor) -> Tensor:
    """Put the codes of columns 2j and 2j + 1 into the low and the high nibble of byte j, in two's complement.

    Args:
        codes: int8 [..., in], each in [-8, 7].

    Returns:
        uint8 [..., ceil(in / 2)]; where `in` is odd the last high nibble is 0.

    Raises:
        ValueError: a code does not fit.
    """
    if bool(((codes < INT4_MIN) | (codes > INT4_MAX)).any()):
        raise ValueError(f"codes {int(codes.min())} to {int(codes.max())} do not fit into 4 bits: clamp them to -8..7")
    nibbles = torch.nn.functional.pad(codes.view(torch.uint8) & 0xF, (0, codes.shape[-1] % 2))
    return nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)


def unpack_int4(packed: Tensor, columns: int) -> Tensor:
    """The codes of packed rows.

    Args:
        packed: uint8 [..., ceil(columns / 2)].
        columns: `in`, which the bytes alone do not tell where it is odd.

    Returns:
        int8 [..., columns], each in [-8, 7].

    Raises:
        ValueError: the rows have another length.
    """
    if packed.shape[-1] != -(-columns // 2):
        raise ValueError(f"{columns} codes of 4 bits are {-(-columns // 2)} bytes, not {packed.shape[-1]}")
    # Shifts of signed bytes carry the sign down.
    low = (packed << 4).view(torch.int8) >> 4
    high = packed.view(torch.int8) >> 4
    return torch.stack((low, high), dim=-1).flatten(-2)[..., :columns].contiguous()


__all__ = ["INT4_MAX", "INT4_MIN", "pack_int4", "unpack_int4"]
