"""What causal-conv1d and mamba-ssm document of their functions, in plain loops that check layouts as launchers do.

Shapes and letters are those of their documentation: b batch, d channels, l tokens, n states, h heads, p head width, g
groups.
"""

import os
from typing import Any

import torch
from torch import Tensor


class FakeKernels:
    """Counts its calls, so that a test can tell who computed."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.precision: list[str | None] = []

    def causal_conv1d_fn(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        seq_idx: None = None,
        initial_states: Tensor | None = None,
        return_final_states: bool = False,
        final_states_out: None = None,
        activation: str | None = None,
    ) -> Tensor:
        """x (b, d, l), weight (d, w), initial_states (b, d, w - 1)."""
        self.calls.append("causal_conv1d_fn")
        (b, d, _), width = x.shape, weight.shape[1]
        assert 2 <= width <= 4
        assert d % 8 == 0
        assert x.stride(1) == 1
        assert x.stride(2) > 1
        assert x.stride(0) % 8 == 0
        assert x.stride(2) % 8 == 0
        assert x.data_ptr() % 16 == 0
        before = x.new_zeros(b, d, width - 1)
        if initial_states is not None:
            assert initial_states.shape == before.shape
            assert initial_states.stride(1) == 1
            before = initial_states
        return convolved(torch.cat([before, x], dim=2), weight, bias, activation)

    def causal_conv1d_update(
        self, x: Tensor, conv_state: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None
    ) -> Tensor:
        """x (b, d), conv_state (b, d, w - 1), which is changed."""
        self.calls.append("causal_conv1d_update")
        assert 2 <= weight.shape[1] <= 4
        assert conv_state.shape == (*x.shape, weight.shape[1] - 1)
        whole = torch.cat([conv_state, x[:, :, None]], dim=2)
        conv_state.copy_(whole[:, :, 1:])
        return convolved(whole, weight, bias, activation)[:, :, 0]

    def selective_scan_fn(
        self,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None = None,
        z: None = None,
        delta_bias: None = None,
        delta_softplus: bool = False,
        return_last_state: bool = False,
    ) -> Any:
        """u and delta (b, d, l), A (d, n), B and C (b, n, l), D (d)."""
        self.calls.append("selective_scan_fn")
        b, d, length = u.shape
        n = A.shape[1]
        assert delta.shape == u.shape
        assert A.shape == (d, n)
        assert n <= 256
        assert B.shape == C.shape == (b, n, length)
        assert D is not None
        assert D.shape == (d,)
        assert not delta_softplus
        state, outputs = u.new_zeros(b, d, n), []
        for t in range(length):
            decay = torch.exp(delta[:, :, t, None] * A)
            state = decay * state + (delta[:, :, t] * u[:, :, t])[:, :, None] * B[:, None, :, t]
            outputs.append((state * C[:, None, :, t]).sum(-1) + D * u[:, :, t])
        out = torch.stack(outputs, dim=2)
        return (out, state) if return_last_state else out

    def selective_state_update(
        self,
        state: Tensor,
        x: Tensor,
        dt: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None = None,
        z: None = None,
        dt_bias: Tensor | None = None,
        dt_softplus: bool = False,
    ) -> Tensor:
        """state (b, d, n) or (b, h, p, n), which is changed; x, dt (b, d) or (b, h, p); B, C (b, n) or (b, g, n)."""
        self.calls.append("selective_state_update")
        if D is None or dt_bias is None:
            raise TypeError("the launcher cannot do without D and dt_bias")
        assert dt.shape == x.shape == state.shape[:-1]
        assert A.shape == state.shape[1:]
        assert D.shape == dt_bias.shape == x.shape[1:]
        dt = dt + dt_bias
        if state.ndim == 4:
            heads = x.shape[1] // B.shape[1]
            B, C = (t.repeat_interleave(heads, dim=1)[:, :, None, :] for t in (B, C))
        else:
            B, C = B[:, None, :], C[:, None, :]
        state.copy_(torch.exp(dt[..., None] * A) * state + (dt * x)[..., None] * B)
        return (state * C).sum(-1) + D * x

    def mamba_chunk_scan_combined(
        self,
        x: Tensor,
        dt: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        chunk_size: int,
        D: Tensor | None = None,
        z: None = None,
        dt_bias: None = None,
        initial_states: Tensor | None = None,
        return_final_states: bool = False,
    ) -> Any:
        """x (b, l, h, p), dt (b, l, h), A (h), B and C (b, l, g, n), D (h) or (h, p), initial_states (b, h, p, n)."""
        self.calls.append("mamba_chunk_scan_combined")
        self.precision.append(os.environ.get("TRITON_F32_DEFAULT"))
        b, length, h, p = x.shape
        g, n = B.shape[2:]
        assert chunk_size & (chunk_size - 1) == 0
        assert dt.shape == (b, length, h)
        assert A.shape == (h,)
        assert B.shape == C.shape == (b, length, g, n)
        assert D is not None
        assert D.shape in ((h,), (h, p))
        state = x.new_zeros(b, h, p, n) if initial_states is None else initial_states
        assert state.shape == (b, h, p, n)
        B, C = (t.repeat_interleave(h // g, dim=2) for t in (B, C))
        outputs = []
        for t in range(length):
            added = (dt[:, t, :, None] * x[:, t])[..., None] * B[:, t, :, None, :]
            state = torch.exp(dt[:, t] * A)[..., None, None] * state + added
            outputs.append((state * C[:, t, :, None, :]).sum(-1) + x[:, t] * (D if D.ndim == 2 else D[:, None]))
        out = torch.stack(outputs, dim=1)
        return (out, state) if return_final_states else out

    def states_of_chunks(
        self,
        x: Tensor,
        dt: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        chunk_size: int,
        D: Tensor | None = None,
        initial_states: Tensor | None = None,
    ) -> tuple[Tensor, None, None, None, Tensor, Tensor]:
        """The function behind `mamba_chunk_scan_combined`: out, and the states (b, c, h, p, n) before each chunk."""
        self.calls.append("states_of_chunks")
        b, length, h, p = x.shape
        state = x.new_zeros(b, h, p, B.shape[3]) if initial_states is None else initial_states
        outputs, states = [], []
        for start in range(0, length, chunk_size):
            states.append(state)
            tokens = slice(start, start + chunk_size)
            parts = x[:, tokens], dt[:, tokens], A, B[:, tokens], C[:, tokens], chunk_size
            out, state = self.mamba_chunk_scan_combined(*parts, D=D, initial_states=state, return_final_states=True)
            outputs.append(out)
        return torch.cat(outputs, dim=1), None, None, None, torch.stack(states, dim=1), state


def convolved(whole: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> Tensor:
    """(b, d, w - 1 + l) to (b, d, l)."""
    assert activation in (None, "silu")
    out = torch.nn.functional.conv1d(whole, weight[:, None], bias, groups=len(weight))
    return torch.nn.functional.silu(out) if activation else out
