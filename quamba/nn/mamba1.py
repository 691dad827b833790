"""The Mamba-1 mixer, open: every tensor that quantization watches is a line here (arXiv 2312.00752)."""

import torch
from torch import Tensor, nn

from quamba.kernels.ops import selective_scan
from quamba.models.config import ModelConfig
from quamba.nn.cache import LayerCache
from quamba.nn.mixer import STATE_STRIDE, Tap, observe_state, remember, state_before, token_mask
from quamba.nn.parameter import values_of
from quamba.qtypes import Activation, narrow, to_float


class Mamba1Mixer(nn.Module):
    """[x; z] = W_in u;  x = SiLU(conv(x));  [dt, B, C] = W_x x;  y = scan(x, dt, B, C) * SiLU(z);  W_out y.

    The parts are given: `Linear`, `CausalConv1d` and `Parameter`, or their quantized forms. Activations flow between
    them as tensors or as codes with scales, and this class is the same for both.

    Args:
        config: sizes.
        parts: in_proj, conv1d, x_proj, dt_proj, out_proj, A_log [E, N], D [E], dt_bias [E].
    """

    state_scale: Tensor | None

    def __init__(self, config: ModelConfig, parts: dict[str, nn.Module]) -> None:
        super().__init__()
        self.config = config
        self.in_proj = parts["in_proj"]
        self.conv1d = parts["conv1d"]
        self.x_proj = parts["x_proj"]
        self.dt_proj = parts["dt_proj"]
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
        """[Bt, L, D] to [Bt, L, D].

        Args:
            u: float32, normalized.
            lengths: real tokens of each right-padded row, int64 [Bt]; only memory and observation need them.
            cache: goes on from it, and is brought up to date.
            tap: called with every watched tensor.
        """
        E, N, R = self.config.d_inner, self.config.d_state, self.config.dt_rank
        xz: Activation = self.in_proj(u)
        x, z = narrow(xz, 0, E), narrow(xz, E, E)
        conv: Activation = self.conv1d(x, None if cache is None else cache.conv)  # [Bt, L, E]
        parameters: Activation = self.x_proj(conv)  # [Bt, L, R + 2N]
        dt: Activation = self.dt_proj(narrow(parameters, 0, R))  # [Bt, L, E]
        B, C = (to_float(narrow(parameters, R + i * N, N)) for i in (0, 1))  # [Bt, L, N]
        delta = nn.functional.softplus(to_float(dt) + values_of(self.dt_bias))
        if lengths is not None and (tap is not None or cache is not None):
            delta = delta * token_mask(u.shape[1], lengths)
        scan = selective_scan(
            to_float(conv),
            delta,
            -torch.exp(values_of(self.A_log)),
            B,
            C,
            values_of(self.D),
            state=state_before(cache),
            stride=None if tap is None else STATE_STRIDE,
        )
        y: Tensor = self.rotation(scan.y.mul_(nn.functional.silu(to_float(z))))
        if tap is not None:
            tap({"in_proj:input": u.shape[-1]}, u, lengths)
            tap({"in_proj:output": 2 * E}, to_float(xz), lengths)
            tap({"x_proj:input": E}, to_float(conv), lengths)
            tap({"x_proj:output": R + 2 * N}, to_float(parameters), lengths)
            tap({"dt_proj:output": E}, to_float(dt), lengths)
            observe_state(tap, scan.checkpoints, lengths)
            tap({"out_proj:input": E}, y, lengths)
        if cache is not None:
            remember(cache, x, scan.state, self.state_scale, lengths, self.config.d_conv - 1)
        out: Tensor = self.out_proj(y)
        return out


__all__ = ["Mamba1Mixer"]
