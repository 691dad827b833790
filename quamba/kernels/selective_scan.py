"""The Mamba-1 recurrence on any device, written for speed on a CPU (Mamba, arXiv 2312.00752, section 3.2).

    h_t = exp(dt_t A) * h_{t-1} + (dt_t x_t) B_t^T        y_t = h_t C_t + D * x_t

The state is laid out [Bt, N, E], so that every inner loop runs over contiguous channels. A few steps at a time,
everything that does not depend on the state before (the decays, the inputs) is computed for all of them at once in
buffers small enough for the second-level cache; then one fused multiply-add a step carries the state, and one batched
product reads all outputs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# Elements of a work buffer (float32): three of them fit a 2 MiB cache with room for the operands.
_BUFFER_ELEMENTS = 1 << 18
# Where there are no such caches: memory is the limit, and every step is a launch.
_DEVICE_BUFFER_ELEMENTS = 1 << 26
# Steps to take at once, at least, where there are rows enough to choose from.
_STEPS = 4


@dataclass(frozen=True, slots=True)
class ScanResult:
    """What a scan leaves.

    Attributes:
        y: [Bt, L, E] (Mamba-1) or [Bt, L, H, P] (Mamba-2).
        state: the state after the last token; [Bt, E, N] or [Bt, H, P, N].
        checkpoints: the states after every `stride` tokens, the last one after all of them:
            [Bt, ceil(L / stride), ...]; None where none were asked for.
    """

    y: Tensor
    state: Tensor
    checkpoints: Tensor | None


def selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    *,
    state: Tensor | None = None,
    stride: int | None = None,
) -> ScanResult:
    """Run the recurrence over L tokens.

    Args:
        x: float32 [Bt, L, E], after convolution and SiLU.
        dt: float32 [Bt, L, E], after softplus. A token with dt = 0 leaves the state as it is: that is how padding is
            masked.
        A: float32 [E, N], negative.
        B: float32 [Bt, L, N].
        C: float32 [Bt, L, N].
        D: float32 [E].
        state: float32 [Bt, E, N] before the first token; None for zeros.
        stride: also return the states after every so many tokens.
    """
    batch, length, channels = x.shape
    n = A.shape[1]
    y = torch.empty_like(x)
    # A copy, whatever the layout of what was given: it is written to.
    before = None if state is None else state.transpose(1, 2).clone(memory_format=torch.contiguous_format)
    h = x.new_zeros(batch, n, channels) if before is None else before
    marks = 0 if stride is None else -(-length // stride)
    checkpoints = x.new_empty(batch, marks, n, channels) if marks else None
    # So few rows at a time that several steps fit the buffers; rows do not know of each other.
    elements = _buffer_elements(x.device)
    rows = max(1, min(batch, elements // (_STEPS * n * channels)))
    rows = -(-batch // -(-batch // rows))
    for start in range(0, batch, rows):
        part = slice(start, start + rows)
        _scan_rows(x[part], dt[part], A, B[part], C[part], h[part], y[part], stride, checkpoints, part)
    y.addcmul_(x, D)
    if checkpoints is not None:
        checkpoints = checkpoints.transpose(2, 3)
    return ScanResult(y=y, state=h.transpose(1, 2), checkpoints=checkpoints)


def _scan_rows(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    h: Tensor,
    y: Tensor,
    stride: int | None,
    checkpoints: Tensor | None,
    part: slice,
) -> None:
    """Scan a few rows; writes `y` [b, L, E], updates `h` [b, N, E] and fills `checkpoints`."""
    batch, length, channels = x.shape
    n = A.shape[1]
    steps = max(1, min(length, _buffer_elements(x.device) // (batch * n * channels)))
    decays = x.new_empty(steps, batch, n, channels)
    states = x.new_empty(steps, batch, n, channels)
    At = A.t().contiguous()
    # Time first: a step's operands are contiguous, and a few steps' too.
    dt, dtx = (t.transpose(0, 1).contiguous()[:, :, None, :] for t in (dt, dt * x))
    B = B.transpose(0, 1).contiguous()[:, :, :, None]
    C = C.transpose(0, 1).contiguous().view(length * batch, 1, n)
    out = x.new_empty(length, batch, channels)
    rows_out = out.view(length * batch, 1, channels)
    pairs = list(zip(states.unbind(), decays.unbind(), strict=True))
    for begin in range(0, length, steps):
        count = min(steps, length - begin)
        tokens = slice(begin, begin + count)
        whole = count == steps
        torch.mul(dt[tokens], At, out=decays if whole else decays[:count]).exp_()
        torch.mul(B[tokens], dtx[tokens], out=states if whole else states[:count])
        previous = h
        for state, decay in pairs[:count]:
            previous = torch.addcmul(state, previous, decay, out=state)
        flat = slice(begin * batch, (begin + count) * batch)
        torch.bmm(C[flat], states[:count].view(count * batch, n, channels), out=rows_out[flat])
        # The buffer is written again by the next steps.
        h.copy_(previous)
        if checkpoints is not None and stride is not None:
            for mark in range(begin // stride, (begin + count) // stride):
                checkpoints[part, mark] = states[(mark + 1) * stride - 1 - begin]
    y.copy_(out.transpose(0, 1))
    if checkpoints is not None and stride is not None and length % stride:
        checkpoints[part, -1] = h


def _buffer_elements(device: torch.device) -> int:
    return _BUFFER_ELEMENTS if device.type == "cpu" else _DEVICE_BUFFER_ELEMENTS


def selective_scan_reference(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, *, state: Tensor | None = None
) -> ScanResult:
    """The definition, a token at a time; same arguments and shapes as `selective_scan`."""
    batch, length, channels = x.shape
    h = x.new_zeros(batch, channels, A.shape[1]) if state is None else state.clone()
    outputs = []
    for t in range(length):
        decay = torch.exp(dt[:, t, :, None] * A)
        h = decay * h + (dt[:, t] * x[:, t])[:, :, None] * B[:, t, None, :]
        outputs.append((h * C[:, t, None, :]).sum(-1) + D * x[:, t])
    return ScanResult(y=torch.stack(outputs, dim=1), state=h, checkpoints=None)


__all__ = ["ScanResult", "selective_scan", "selective_scan_reference"]
