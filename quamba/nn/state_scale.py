"""The scale of a mixer's 8-bit state: one value, or for each channel a row of one for each state column."""

import torch
from torch import Tensor, nn

_TABLE, _ROWS = "state_scale_table", "state_scale_rows"


def set_state_scale(mixer: nn.Module, scale: Tensor) -> None:
    """Give a mixer its state's scale; what is kept of a scale for each channel is the rows that differ.

    Args:
        mixer: it gets the buffer `state_scale`, and where that is expanded from rows also `state_scale_table`
            [rows, N] and `state_scale_rows` [H, P], the row of each channel, which are what is saved.
        scale: float32, a single value or [H, P, N].
    """
    if scale.ndim == 0:
        mixer.register_buffer("state_scale", scale)
        return
    table, rows = torch.unique(scale.flatten(0, -2), dim=0, return_inverse=True)
    set_state_scale_rows(mixer, table, rows.view(scale.shape[:-1]).to(torch.int16))


def set_state_scale_rows(mixer: nn.Module, table: Tensor, rows: Tensor) -> None:
    """The same from what was kept: float32 [rows, N] and int16 [H, P]."""
    mixer.register_buffer(_TABLE, table)
    mixer.register_buffer(_ROWS, rows)
    mixer.register_buffer("state_scale", table[rows.int()], persistent=False)


__all__ = ["set_state_scale", "set_state_scale_rows"]
