"""Inputs of the kernels for tests that compare implementations, and the comparison."""

import torch
from torch import Tensor

from quamba.kernels.selective_scan import ScanResult

Inputs = dict[str, Tensor]


def selective_inputs(batch: int, length: int, channels: int = 13, n: int = 5, seed: int = 0) -> Inputs:
    """Of Mamba-1's scan, as the mixer makes them: B and C lie side by side in one tensor; rows end at random."""
    generator = torch.Generator().manual_seed(seed)
    both = torch.randn(batch, length, 2 * n, generator=generator)
    return {
        "x": torch.randn(batch, length, channels, generator=generator),
        "dt": masked(torch.rand(batch, length, channels, generator=generator), generator),
        "A": -torch.rand(channels, n, generator=generator) * 8,
        "B": both[..., :n],
        "C": both[..., n:],
        "D": torch.randn(channels, generator=generator),
        "state": torch.randn(batch, channels, n, generator=generator),
    }


def chunk_inputs(
    batch: int, length: int, *, heads: int = 6, width: int = 4, groups: int = 2, n: int = 5, per_channel: bool = False,
    seed: int = 0,
) -> Inputs:  # fmt: skip
    """Of Mamba-2's scan, as the mixer makes them: x, B and C lie side by side in one tensor; rows end at random."""
    generator = torch.Generator().manual_seed(seed)
    E, GN = heads * width, groups * n
    xBC = torch.randn(batch, length, E + 2 * GN, generator=generator)
    return {
        "x": xBC[..., :E].reshape(batch, length, heads, width),
        "dt": masked(torch.rand(batch, length, heads, generator=generator), generator),
        "A": -torch.rand(heads, generator=generator) * 8,
        "B": xBC[..., E : E + GN].reshape(batch, length, groups, n),
        "C": xBC[..., E + GN :].reshape(batch, length, groups, n),
        "D": torch.randn(*((heads, width) if per_channel else (heads,)), generator=generator),
        "state": torch.randn(batch, heads, width, n, generator=generator),
    }


def masked(dt: Tensor, generator: torch.Generator) -> Tensor:
    """dt [Bt, L, ...] with zeros from each row's own end on; the first row is whole."""
    batch, length = dt.shape[:2]
    lengths = torch.randint(1, length + 1, (batch,), generator=generator)
    lengths[0] = length
    return dt * (torch.arange(length) < lengths[:, None])[..., None]


def without_state(inputs: Inputs) -> Inputs:
    """The same from zeros."""
    return {name: tensor for name, tensor in inputs.items() if name != "state"}


def on(device: str, inputs: Inputs) -> Inputs:
    """The same elsewhere, with the strides that they have here."""
    return {name: torch.empty_strided(t.shape, t.stride(), device=device).copy_(t) for name, t in inputs.items()}


def assert_same(found: ScanResult, expected: ScanResult, tolerance: float = 1e-4) -> None:
    """Outputs, states and checkpoints, on whatever device."""
    pairs = [(found.y, expected.y), (found.state, expected.state)]
    assert (found.checkpoints is None) == (expected.checkpoints is None)
    if found.checkpoints is not None and expected.checkpoints is not None:
        pairs.append((found.checkpoints, expected.checkpoints))
    for a, b in pairs:
        assert a.shape == b.shape
        assert (a.cpu() - b.cpu()).abs().max() <= tolerance * max(1.0, float(b.abs().max()))
