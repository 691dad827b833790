"""The fused kernels of whole prompts, each against its definition; interpreted where there is no GPU."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")

from quamba.kernels.convolution import Convolution
from quamba.kernels.triton_conv_prompt import conv_prompt, conv_prompt_reference
from tests.quamba.test_triton_kernels import DEVICE, codes

REAL = pytest.mark.gpu


def make_convolution(first: int, channels: int, taps: int) -> Convolution:
    return Convolution(
        first,
        codes(taps, channels),
        torch.rand(channels, device=DEVICE) * 4e-4 + 1e-4,
        torch.randn(channels, device=DEVICE),
        torch.rand(channels, device=DEVICE) * 0.05 + 0.02,
    )


def assert_codes_agree(found: Tensor, expected: Tensor, share: float = 1e-4) -> None:
    """But for a few that lie between two."""
    apart = (found.int() - expected.int()).abs()
    assert int(apart.max()) <= 1
    assert int((apart > 0).sum()) <= max(1, share * apart.numel())


@pytest.mark.parametrize(
    ("batch", "length", "width", "first", "channels", "taps", "context"),
    [
        (2, 9, 48, 16, 24, 4, True),
        (1, 5, 20, 0, 20, 3, False),
        (1, 1, 16, 8, 8, 2, True),
        pytest.param(2, 333, 3352, 1536, 1792, 4, True, marks=REAL),
        pytest.param(8, 2048, 10576, 5120, 5376, 4, False, marks=REAL),
        pytest.param(2, 1000, 5120, 0, 2560, 3, True, marks=REAL),
    ],
)
def test_convolution_of_a_prompt(
    batch: int, length: int, width: int, first: int, channels: int, taps: int, context: bool
) -> None:
    """Its definition, whatever the number of taps, with codes before the first token or none."""
    torch.manual_seed(0)
    conv, given = make_convolution(first, channels, taps), codes(batch, length, width)
    before = codes(batch, taps - 1, channels) if context else None
    found, expected = (torch.empty(batch, length, channels, dtype=torch.int8, device=DEVICE) for _ in range(2))
    conv_prompt(given, conv, before, found, tokens=8 if length < 64 else 64)
    conv_prompt_reference(given, conv, before, expected)
    assert_codes_agree(found, expected)
