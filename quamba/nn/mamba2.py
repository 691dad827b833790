"""The Mamba-2 mixer, open: every tensor that quantization watches is a line here (arXiv 2405.21060)."""

import math

import torch
from torch import Tensor, nn

from quamba.kernels.ops import chunk_scan
from quamba.models.config import ModelConfig
from quamba.nn.cache import LayerCache
from quamba.nn.mixer import STATE_STRIDE, Tap, observe_state, remember, state_before, token_mask
from quamba.nn.parameter import values_of
from quamba.qtypes import Activation, narrow, to_float


class Mamba2Mixer(nn.Module):
    """[z, x, B, C, dt] = W_in u;  xBC = SiLU(conv(xBC));  y = scan(x, dt, B, C);  W_out norm(y, z).

    The parts are given: `Linear`, `CausalConv1d`, `GatedRMSNorm` and `Parameter`, or their quantized forms; this class
    is the same for both.

    Args:
        config: sizes.
        parts: in_proj, conv1d, norm, out_proj, A_log [H], D [H] or [E], dt_bias [H].
    """

    state_scale: Tensor | None

    def __init__(self, config: ModelConfig, parts: dict[str, nn.Module]) -> None:
        super().__init__()
        self.config = config
        self.in_proj = parts["in_proj"]
        self.conv1d = parts["conv1d"]
        self.norm = parts["norm"]
        self.out_proj = parts["out_proj"]
        self.A_log = parts["A_log"]
        self.D = parts["D"]
        self.dt_bias = parts["dt_bias"]
        # What out_proj reads passes through it: a rotation takes its place.
        self.rotation: nn.Module = nn.Identity()
        self.register_buffer("state_scale", None)

    def forward(
        self,
        u: Tensor,
        lengths: Tensor | None = None,
        cache: LayerCache | None = None,
        tap: Tap | None = None,
    ) -> Tensor:
        """[Bt, L, D] to [Bt, L, D]; arguments as `Mamba1Mixer.forward`."""
        c = self.config
        E, GN = c.d_inner, c.ngroups * c.d_state
        batch, length = u.shape[:2]
        projected: Activation = self.in_proj(u)  # [Bt, L, 2E + 2GN + H]
        z, xBC = to_float(narrow(projected, 0, E)), narrow(projected, E, E + 2 * GN)
        dt = to_float(narrow(projected, 2 * E + 2 * GN, c.nheads))
        conv = to_float(self.conv1d(xBC, None if cache is None else cache.conv))  # [Bt, L, E + 2GN]
        x = conv.narrow(-1, 0, E).reshape(batch, length, c.nheads, c.headdim)  # [Bt, L, H, P]
        B, C = (  # [Bt, L, G, N]
            conv.narrow(-1, E + i * GN, GN).reshape(batch, length, c.ngroups, c.d_state) for i in (0, 1)
        )
        delta = nn.functional.softplus(dt + values_of(self.dt_bias))
        if c.dt_limit != (0.0, math.inf):
            delta = delta.clamp(*c.dt_limit)
        if lengths is not None and (tap is not None or cache is not None):
            delta = delta * token_mask(length, lengths)
        A = -torch.exp(values_of(self.A_log))
        D = values_of(self.D)
        skip = D.view(c.nheads, c.headdim) if c.D_has_hdim else D
        scan = chunk_scan(
            x, delta, A, B, C, skip, state=state_before(cache), stride=None if tap is None else STATE_STRIDE
        )
        if tap is not None:
            observe_state(tap, scan.checkpoints, lengths)
        gated: Tensor = self.rotation(self.norm(scan.y.flatten(-2), z))
        if tap is not None:
            conv_in = {"x_conv_in:input": E, "B_conv_in:input": GN, "C_conv_in:input": GN}
            tap({"in_proj:input": u.shape[-1]}, u, lengths)
            tap({"z_act:input": E, **conv_in, "dt_act:input": c.nheads}, to_float(projected), lengths)
            tap({"x_conv_out:input": E, "B_conv_out:input": GN, "C_conv_out:input": GN}, conv, lengths)
            tap({"out_proj:input": E}, gated, lengths)
        if cache is not None:
            remember(cache, xBC, scan.state, self.state_scale, lengths, c.d_conv - 1)
        out: Tensor = self.out_proj(gated)
        return out


class PlainGate(nn.Module):
    """y * SiLU(z): what stands in the gated norm's place in models without it (rmsnorm false)."""

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        """y and z [..., E] to [..., E]."""
        return y * nn.functional.silu(z)


__all__ = ["Mamba2Mixer", "PlainGate"]
