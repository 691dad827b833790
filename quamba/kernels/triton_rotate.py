"""Behind the recurrence of a prompt: the norm's means, the rotation of all channels, codes; for many rows."""

from quamba.kernels.triton_join import join_reference as rotate_reference

__all__ = ["rotate_reference"]
