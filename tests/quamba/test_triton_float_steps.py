"""A step's kernels of Mamba-1 in floats, each against its definition; interpreted where there is no GPU."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")

from quamba.kernels.triton_conv_split import conv_split, conv_split_reference
from quamba.kernels.triton_float_selective import (
    FloatSelectiveStep,
    float_selective_step,
    float_selective_step_reference,
)
from quamba.kernels.triton_split import Split, joined
from tests.quamba.kernel_device import DEVICE, PDL, REAL


def values(*shape: int) -> Tensor:
    return torch.randn(shape, device=DEVICE)


@pytest.mark.parametrize("bytes_too", [False, True])
@pytest.mark.parametrize(
    ("batch", "channels", "taps"), [(2, 160, 4), (1, 32, 3), (2, 64, 2), pytest.param(8, 5120, 4, marks=REAL)]
)
def test_a_token_of_floats_through_a_convolution(batch: int, channels: int, taps: int, bytes_too: bool) -> None:
    """Floats, bytes and memory are the definition's at times when the ring goes round; rows of x lie apart."""
    torch.manual_seed(0)
    weights, bias = values(taps, channels), values(channels)
    ring = values(batch, taps, channels)
    expected_ring = ring.clone()
    for time in range(taps, 2 * taps):
        x = values(batch, 2 * channels)[:, channels:]
        position = torch.tensor([time], dtype=torch.int32, device=DEVICE)
        found, expected = (torch.empty(batch, channels, device=DEVICE) for _ in range(2))
        as_bytes, expected_bytes = (Split.empty(batch, channels, DEVICE) if bytes_too else None for _ in range(2))
        conv_split(x, ring, position, weights, bias, found, as_bytes, pdl=PDL)
        conv_split_reference(x, expected_ring, position, weights, bias, expected, expected_bytes)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(ring, expected_ring)
        if as_bytes is not None and expected_bytes is not None:
            # What lies between two integers may go to either.
            torch.testing.assert_close(joined(as_bytes), joined(expected_bytes), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("batch", "channels", "rank", "states"),
    [(2, 40, 3, 16), (1, 16, 5, 6), pytest.param(8, 5120, 160, 16, marks=REAL)],
)
def test_a_token_of_floats_through_the_recurrence(batch: int, channels: int, rank: int, states: int) -> None:
    """Output and state are the definition's, for channels that fill no program and states that are no power of two."""
    torch.manual_seed(1)
    step = FloatSelectiveStep(
        values(channels, rank) * 0.3, values(channels) - 2, -values(channels, states).exp(), values(channels), 0.125
    )
    state = values(batch, channels, states)
    expected_state = state.clone()
    u, z = values(batch, channels), values(batch, 2 * channels)[:, channels:]
    parameters = values(batch, rank + 2 * states)
    found, expected = (torch.empty(batch, channels, device=DEVICE) for _ in range(2))
    float_selective_step(step, u, z, parameters, state, found, pdl=PDL)
    float_selective_step_reference(step, u, z, parameters, expected_state, expected)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state, expected_state, rtol=1e-5, atol=1e-5)
