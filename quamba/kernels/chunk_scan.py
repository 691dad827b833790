"""The Mamba-2 recurrence in its chunked form (SSD; arXiv 2405.21060, section 6), as matrix products.

    S_t = exp(dt_t A_h) S_{t-1} + dt_t x_t B_t^T        y_t = S_t C_t + D_h x_t        S in [P, N], a head h

Inside a chunk of Q tokens all pairs (t, s <= t) are one masked product; between chunks only the states pass on.
"""

import torch
from torch import Tensor

from quamba.kernels.selective_scan import ScanResult

# Elements of the largest intermediate, [rows, chunks, H, Q, Q] in float32: more leaves the caches.
_BUFFER_ELEMENTS = 1 << 19
# Where there are no such caches, memory is the limit.
_DEVICE_BUFFER_ELEMENTS = 1 << 26
DEFAULT_CHUNK = 32


def chunk_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    *,
    state: Tensor | None = None,
    stride: int | None = None,
    chunk_size: int = DEFAULT_CHUNK,
) -> ScanResult:
    """Run the recurrence over L tokens.

    Args:
        x: float32 [Bt, L, H, P], after convolution and SiLU.
        dt: float32 [Bt, L, H], after softplus and limits. A token with dt = 0 leaves the state as it is: that is how
            padding is masked.
        A: float32 [H], negative.
        B: float32 [Bt, L, G, N].
        C: float32 [Bt, L, G, N].
        D: float32 [H] or [H, P].
        state: float32 [Bt, H, P, N] before the first token; None for zeros.
        stride: also return the states after every so many tokens; the chunk size is cut to a divisor of it.
        chunk_size: Q; the result does not depend on it but for rounding.

    Raises:
        ValueError: a chunk size below 1.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, not {chunk_size}")
    batch, length, nheads, headdim = x.shape
    if length == 1 and state is not None and stride is None:
        return _one_token(x, dt, A, B, C, D, state)
    # As many chunks as it takes, of equal size: the last one is hardly ever padded.
    chunk = -(-length // -(-length // chunk_size))
    if stride is not None:
        chunk = next(size for size in range(min(chunk_size, stride), 0, -1) if stride % size == 0)
    chunks = -(-length // chunk)
    y = torch.empty_like(x)
    final = x.new_zeros(batch, nheads, headdim, B.shape[3]) if state is None else state.clone()
    marks = 0 if stride is None else -(-length // stride)
    checkpoints = x.new_empty(batch, marks, *final.shape[1:]) if marks else None
    elements = _BUFFER_ELEMENTS if x.device.type == "cpu" else _DEVICE_BUFFER_ELEMENTS
    rows = max(1, min(batch, elements // (chunks * nheads * chunk * chunk)))
    for start in range(0, batch, rows):
        part = slice(start, start + rows)
        y[part], passed = _scan_rows(x[part], dt[part], A, B[part], C[part], final[part], chunk)
        final[part] = passed[:, -1]
        if checkpoints is not None and stride is not None:
            every = stride // chunk
            checkpoints[part, : chunks // every] = passed[:, every::every]
            if chunks % every:
                checkpoints[part, -1] = passed[:, -1]
    y.addcmul_(x, D if D.ndim == 2 else D[:, None])
    return ScanResult(y=y, state=final, checkpoints=checkpoints)


def _scan_rows(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """Scan a few rows.

    Returns:
        y [b, L, H, P] without D x, and the states before the first chunk and after each one [b, chunks + 1, H, P, N].
    """
    batch, length, nheads, headdim = x.shape
    groups, n = B.shape[2:]
    padding = -length % chunk
    if padding:
        x, B, C = (torch.nn.functional.pad(t, (0, 0, 0, 0, 0, padding)) for t in (x, B, C))
        dt = torch.nn.functional.pad(dt, (0, 0, 0, padding))
    chunks = (length + padding) // chunk
    per_group = nheads // groups
    x = x.view(batch, chunks, chunk, nheads, headdim)
    dt = dt.view(batch, chunks, chunk, nheads).transpose(2, 3).contiguous()  # [b, c, H, Q]
    B = B.view(batch, chunks, chunk, groups, n).transpose(2, 3)  # [b, c, G, Q, N]
    C = C.view(batch, chunks, chunk, groups, n).transpose(2, 3)
    # The exponents are differences of sums. Sums in float64, split into a float32 and what it leaves, keep near pairs
    # of tokens exact however large the sums have grown.
    exact = torch.cumsum((dt * A[:, None]).double(), dim=-1)
    cumulative = exact.to(dt.dtype)
    rest = (exact - cumulative).to(dt.dtype)
    to_end = torch.exp((exact[..., -1:] - exact).to(dt.dtype))

    # 1. what each chunk adds to the state: sum_t exp(c_last - c_t) dt_t x_t B_t^T              [b, c, H, P, N]
    # Heads of a group share B and C, so that they are one product.
    weighted = (x * (dt * to_end).transpose(2, 3)[..., None]).reshape(batch, chunks, chunk, groups, per_group * headdim)
    added = torch.matmul(weighted.permute(0, 1, 3, 4, 2), B).reshape(batch, chunks, nheads, headdim, n)
    # 2. the states handed from chunk to chunk
    decay = torch.exp(cumulative[..., -1])[..., None, None]
    states = x.new_empty(batch, chunks + 1, nheads, headdim, n)
    states[:, 0] = state
    for j in range(chunks):
        torch.addcmul(added[:, j], decay[:, j], states[:, j], out=states[:, j + 1])
    # 3. what the state before the chunk contributes: exp(c_t) C_t . S
    before = states[:, :-1].reshape(batch, chunks, groups, per_group * headdim, n)
    y = torch.matmul(C, before.transpose(-1, -2)).reshape(batch, chunks, groups, chunk, per_group, headdim)
    y = y.transpose(2, 3).reshape(x.shape).mul_(torch.exp(cumulative).transpose(2, 3)[..., None])
    # 4. pairs inside a chunk: (C_t . B_s) exp(c_t - c_s) for s <= t. Decays only shrink, so that c_t - c_s > 0 marks
    # s > t, which the masked scores remove: cutting the exponent at 0 keeps it finite and costs less than a mask.
    scores = torch.matmul(C, B.transpose(-1, -2)).tril_()[:, :, :, None]
    pairs = (cumulative[..., :, None] - cumulative[..., None, :]).clamp_(max=0.0).exp_()
    pairs = pairs.view(batch, chunks, groups, per_group, chunk, chunk).mul_(scores).reshape(-1, chunk, chunk)
    heads = (batch, chunks, nheads, chunk, headdim)
    inputs = torch.mul(x.transpose(2, 3), (dt * torch.exp(-rest))[..., None], out=x.new_empty(heads))
    inside = torch.bmm(pairs, inputs.view(-1, chunk, headdim)).view(heads)
    y.addcmul_(inside.transpose(2, 3), torch.exp(rest).transpose(2, 3)[..., None])
    return y.reshape(batch, length + padding, nheads, headdim)[:, :length], states


def chunk_scan_reference(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, *, state: Tensor | None = None
) -> ScanResult:
    """The definition, a token at a time; same arguments and shapes as `chunk_scan`."""
    batch, length, nheads, headdim = x.shape
    per_group = nheads // B.shape[2]
    h = x.new_zeros(batch, nheads, headdim, B.shape[3]) if state is None else state
    outputs = []
    skip = D if D.ndim == 2 else D[:, None]
    for t in range(length):
        h, y = state_update(h, x[:, t], dt[:, t], A, B[:, t], C[:, t], per_group)
        outputs.append(y + skip * x[:, t])
    return ScanResult(y=torch.stack(outputs, dim=1), state=h, checkpoints=None)


def _one_token(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor) -> ScanResult:
    per_group = x.shape[2] // B.shape[2]
    after, y = state_update(state, x[:, 0], dt[:, 0], A, B[:, 0], C[:, 0], per_group)
    y = y + x[:, 0] * (D if D.ndim == 2 else D[:, None])
    return ScanResult(y=y[:, None], state=after, checkpoints=None)


def state_update(
    state: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, per_group: int
) -> tuple[Tensor, Tensor]:
    """One token of the recurrence: the state after it [Bt, H, P, N] and its output [Bt, H, P] without D x.

    Args:
        state: [Bt, H, P, N].
        x: [Bt, H, P].
        dt: [Bt, H].
        A: [H].
        B: [Bt, G, N].
        C: [Bt, G, N].
        per_group: H / G.
    """
    B = B.repeat_interleave(per_group, dim=1)
    C = C.repeat_interleave(per_group, dim=1)
    decay = torch.exp(dt * A)[..., None, None]
    state = decay * state + (dt[..., None] * x)[..., None] * B[:, :, None, :]
    return state, torch.matmul(state, C[..., None]).squeeze(-1)


__all__ = ["DEFAULT_CHUNK", "chunk_scan", "chunk_scan_reference", "state_update"]
