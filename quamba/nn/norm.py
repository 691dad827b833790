"""Root-mean-square normalization, plain and gated."""

from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x rsqrt(mean(x^2) + eps) w over the last axis.

    Args:
        weight: float32 [D].
        eps: added to the mean square.
    """

    weight: Tensor

    def __init__(self, weight: Tensor, eps: float) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] to [..., D]."""
        return nn.functional.rms_norm(x, self.weight.shape, self.weight, self.eps)


class GatedRMSNorm(nn.Module):
    """RMSNorm_g(y * SiLU(z)) w, the mean taken over groups of E / G channels (Mamba-2's norm before out_proj).

    Args:
        weight: float32 [E].
        eps: added to the mean square.
        groups: G.
        norm_before_gate: normalize y alone, then gate.
    """

    weight: Tensor

    def __init__(self, weight: Tensor, eps: float, groups: int, norm_before_gate: bool = False) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.eps = eps
        self.groups = groups
        self.norm_before_gate = norm_before_gate

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        """y and z [..., E] to [..., E]."""
        gate = nn.functional.silu(z)
        if not self.norm_before_gate:
            return self._normalize(y * gate)
        return self._normalize(y).mul_(gate)

    def _normalize(self, y: Tensor) -> Tensor:
        if self.groups == 1:
            return nn.functional.rms_norm(y, self.weight.shape, self.weight, self.eps)
        grouped = y.view(*y.shape[:-1], self.groups, -1)
        return nn.functional.rms_norm(grouped, grouped.shape[-1:], None, self.eps).flatten(-2).mul_(self.weight)


__all__ = ["GatedRMSNorm", "RMSNorm"]
