"""GPTQ's inner loop as a kernel is that of plain PyTorch; interpreted where there is no GPU."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from quamba import gptq
from quamba.granularity import SCHEMES
from quamba.kernels import triton_round_block
from tests.quamba.kernel_device import DEVICE


@pytest.mark.parametrize(
    ("scheme", "act_order", "out", "inner"),
    [
        pytest.param("W8A8", False, 40, 24, id="W8A8"),
        pytest.param("W4A8", False, 33, 140, id="W4A8"),
        pytest.param("W4A16", True, 20, 150, id="W4A16 in order of activations"),
        pytest.param("W4A8", False, 1000, 300, id="real", marks=pytest.mark.gpu),
    ],
)
def test_the_kernel_rounds_as_plain_pytorch_does(
    scheme: str, act_order: bool, out: int, inner: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same codes but where a last bit decides, and so the same error of the outputs."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(out, inner, generator=generator).to(DEVICE)
    inputs = torch.randn(500, inner, generator=generator) @ torch.randn(inner, inner, generator=generator)
    inputs = inputs.to(DEVICE)
    inputs[:, 3] = 0.0  # An input that nothing reaches.
    hessian = gptq.Hessian(inner, DEVICE)
    hessian.add(inputs)
    found = []
    for kernel in (triton_round_block, None):
        monkeypatch.setattr(gptq, "own_kernel", lambda *_, kernel=kernel: kernel)
        found.append(gptq.gptq(weight, hessian.matrix(), SCHEMES[scheme], act_order=act_order))
    errors = [((weight - weights.dequantize()) @ inputs.t()).square().sum() for weights in found]
    assert (found[0].codes != found[1].codes).float().mean() < 0.01
    assert bool((found[0].codes[:, 3] == 0).all())
    torch.testing.assert_close(*errors, rtol=0.01, atol=0.0)


def test_the_trial_finds_out_another_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel passes it; one whose errors are others does not."""
    assert triton_round_block.agrees(torch.device(DEVICE))
    right = triton_round_block.round_block
    monkeypatch.setattr(triton_round_block, "round_block", lambda *given: (right(*given)[0], right(*given)[1] * 1.1))
    assert not triton_round_block.agrees(torch.device(DEVICE))
