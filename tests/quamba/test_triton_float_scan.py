"""The scan in float, in one launch, is its definition; interpreted where there is no GPU."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")

from quamba.kernels import triton_float_scan
from quamba.kernels.selective_scan import ScanResult, selective_scan
from quamba.kernels.triton_float_scan import fits, float_scan
from tests.quamba.kernel_device import DEVICE


@pytest.mark.parametrize(
    ("rows", "length", "channels", "n", "stride"),
    [
        pytest.param(2, 9, 40, 16, 4, id="marks"),
        pytest.param(1, 8, 130, 6, 4, id="odd sizes"),
        pytest.param(2, 3, 32, 33, None, id="many states"),
        pytest.param(2, 1, 32, 16, 128, id="one token"),
        pytest.param(32, 512, 2048, 16, 128, id="real", marks=pytest.mark.gpu),
        pytest.param(3, 300, 1536, 16, 128, id="a rest", marks=pytest.mark.gpu),
        pytest.param(2, 77, 54, 5, 7, id="odd and real", marks=pytest.mark.gpu),
    ],
)
@pytest.mark.parametrize("with_state", [False, True])
def test_the_scan_is_its_definition(
    rows: int, length: int, channels: int, n: int, stride: int | None, with_state: bool
) -> None:
    """Outputs, last state and states on the way; a token with dt = 0 leaves the state alone, bit for bit."""
    generator = torch.Generator().manual_seed(length)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(DEVICE)

    x, dt = randn(rows, length, channels), randn(rows, length, channels).abs() * 0.1
    dt[-1, length - length // 4 :] = 0.0
    parameters = randn(rows, length, 3 + 2 * n)  # B and C are columns of one tensor.
    B, C = parameters[..., 3 : 3 + n], parameters[..., 3 + n :]
    A, D = -randn(channels, n).abs() * 4, randn(channels)
    state = randn(rows, channels, n) if with_state else None
    found = float_scan(x, dt, A, B, C, D, state=state, stride=stride)
    expected = selective_scan(x, dt, A, B, C, D, state=state, stride=stride)
    torch.testing.assert_close(found.y, expected.y, rtol=2e-4, atol=2e-4)
    torch.testing.assert_close(found.state, expected.state, rtol=2e-4, atol=2e-4)
    assert (found.checkpoints is None) == (stride is None)
    if stride is not None and found.checkpoints is not None and expected.checkpoints is not None:
        torch.testing.assert_close(found.checkpoints, expected.checkpoints, rtol=2e-4, atol=2e-4)
        assert torch.equal(found.checkpoints[:, -1], found.state)
        if length // 4 >= stride:
            assert torch.equal(found.checkpoints[-1, -1], found.checkpoints[-1, -2])


def test_what_the_kernel_takes() -> None:
    """Float32, and states that fit a program's registers."""
    x = torch.zeros(1, 2, 8)
    assert fits(x, torch.zeros(8, 64))
    assert not fits(x, torch.zeros(8, 65))
    assert not fits(x.double(), torch.zeros(8, 16))
    with pytest.raises(ValueError, match="65 states"):
        float_scan(x, x, torch.zeros(8, 65), torch.zeros(1, 2, 65), torch.zeros(1, 2, 65), torch.zeros(8))


def test_the_trial_finds_out_another_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel passes it on a GPU; another result does not, nor one that is no number."""
    if DEVICE == "cuda":
        assert triton_float_scan.agrees(torch.device(DEVICE))
    for factor in (1.01, float("nan")):

        def wrong(*given: Tensor, factor: float = factor, **how: Any) -> ScanResult:
            found = selective_scan(*given, **how)
            return replace(found, y=found.y * factor)

        monkeypatch.setattr(triton_float_scan, "float_scan", wrong)
        assert not triton_float_scan.agrees(torch.device(DEVICE))
