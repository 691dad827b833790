"""On a CUDA device each kernel is its definition on the CPU."""

from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from quamba.kernels import fused_chunk_scan, int_matmul, ops
from quamba.kernels.causal_conv1d import causal_conv1d, last_inputs
from quamba.kernels.chunk_scan import chunk_scan as plain_chunk_scan
from quamba.kernels.chunk_scan import chunk_scan_reference
from quamba.kernels.fused_chunk_scan import FusedChunkScan
from quamba.kernels.fused_conv1d import FusedConv1d
from quamba.kernels.fused_selective_scan import FusedSelectiveScan
from quamba.kernels.selective_scan import selective_scan as plain_selective_scan
from quamba.kernels.selective_scan import selective_scan_reference
from tests.quamba.kernel_cases import assert_same, chunk_inputs, on, selective_inputs, without_state

# Triton compiles and tries its kernels when sizes are first met: minutes, once.
pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]
DEVICE = "cuda"
# One token; less than a chunk; at, before and behind the ends of chunks.
LENGTHS = [1, 2, 37, 63, 64, 65, 300]


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> ops.Implementations:
    """The packages' kernels, with nothing to fall back on."""
    chosen = ops.implementations(DEVICE)
    if not isinstance(chosen.causal_conv1d, FusedConv1d) or not isinstance(chosen.chunk_scan, FusedChunkScan):
        pytest.skip("mamba-ssm or causal-conv1d is not installed: plain PyTorch runs, and is tested below")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("plain PyTorch ran in the kernel's place")

    monkeypatch.setattr("quamba.kernels.fused_conv1d.causal_conv1d", refuse)
    monkeypatch.setattr("quamba.kernels.fused_selective_scan.selective_scan", refuse)
    return chosen


def trusted(chosen: ops.Implementations, inputs: dict[str, Tensor]) -> None:
    """The comparison that decides on the chunk scan was in its favour."""
    assert isinstance(chosen.chunk_scan, FusedChunkScan)
    (heads, width), (groups, n) = inputs["x"].shape[2:], inputs["B"].shape[2:]
    assert fused_chunk_scan._is_precise(chosen.chunk_scan.scan, inputs["x"].device, heads, width, groups, n)


def test_packages_that_are_installed_are_found() -> None:
    """Where pip has put them, they are what runs."""
    chosen = ops.implementations(DEVICE)
    assert isinstance(chosen.causal_conv1d, FusedConv1d) == (find_spec("causal_conv1d") is not None)
    assert isinstance(chosen.selective_scan, FusedSelectiveScan) == (find_spec("mamba_ssm") is not None)
    assert isinstance(chosen.chunk_scan, FusedChunkScan) == (find_spec("mamba_ssm") is not None)


def test_products_are_in_float32() -> None:
    """Nothing here has let torch multiply in TF32."""
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("width", [2, 3, 4])
def test_the_convolution(width: int, length: int, fused: ops.Implementations) -> None:
    """Cut out of a wider tensor at any place, from a context or from zeros, with its SiLU or without."""
    generator = torch.Generator().manual_seed(length)
    for channels, begin, rest in ((8, 0, 0), (24, 24, 7), (136, 3, 2)):
        projected = torch.randn(3, length, begin + channels + rest, generator=generator)
        weight, bias = torch.randn(channels, width, generator=generator), torch.randn(channels, generator=generator)
        context = torch.randn(3, width - 1, channels, generator=generator)
        for before, shift, silu in ((None, bias, True), (context, None, False), (context, bias, True)):
            x = projected[..., begin : begin + channels]
            expected = causal_conv1d(x, weight, shift, before, silu=silu)
            found = fused.causal_conv1d(
                projected.to(DEVICE)[..., begin : begin + channels],
                weight.to(DEVICE),
                None if shift is None else shift.to(DEVICE),
                None if before is None else before.to(DEVICE),
                silu=silu,
            )
            assert torch.allclose(found.cpu(), expected, atol=1e-5)


@pytest.mark.parametrize("length", [1, 50])
def test_the_convolution_of_codes_is_exact(length: int) -> None:
    """Integers in float32 give the same bits on both devices, for widths that a kernel has and others."""
    generator = torch.Generator().manual_seed(0)
    for width in (1, 2, 4, 6):
        x = torch.randint(-128, 128, (2, length, 16), generator=generator).float()
        weight = torch.randint(-128, 128, (16, width), generator=generator).float()
        context = torch.randint(-128, 128, (2, width - 1, 16), generator=generator).float()
        for before in (None, context):
            on_device = None if before is None else before.to(DEVICE)
            found = ops.causal_conv1d(x.to(DEVICE), weight.to(DEVICE), None, on_device)
            assert torch.equal(found.cpu(), causal_conv1d(x, weight, None, before))


def test_last_inputs() -> None:
    """What a convolution remembers of ragged rows is the same on both devices."""
    x, lengths, context = torch.randn(4, 9, 8), torch.tensor([1, 9, 4, 2]), torch.randn(4, 3, 8)
    found = last_inputs(x.to(DEVICE), lengths.to(DEVICE), 3, context.to(DEVICE))
    assert torch.equal(found.cpu(), last_inputs(x, lengths, 3, context))


@pytest.mark.parametrize("length", [*LENGTHS, 2048, 2049])
@pytest.mark.parametrize("n", [1, 5, 16])
def test_the_selective_scan(n: int, length: int, fused: ops.Implementations) -> None:
    """For ragged rows, from zeros or any state, with checkpoints or without."""
    inputs = selective_inputs(3, length, n=n, seed=length)
    for given in (inputs, without_state(inputs)):
        assert_same(fused.selective_scan(**on(DEVICE, given)), selective_scan_reference(**given))
        checkpoints = plain_selective_scan(**given, stride=128)
        assert_same(fused.selective_scan(**on(DEVICE, given), stride=128), checkpoints)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_the_chunk_scan(groups: int, length: int, fused: ops.Implementations) -> None:
    """For ragged rows and any groups, from zeros or any state, D for heads or for channels, checkpoints or none."""
    for per_channel in (False, True):
        inputs = chunk_inputs(3, length, groups=groups, per_channel=per_channel, seed=length)
        trusted(fused, on(DEVICE, inputs))
        for given in (inputs, without_state(inputs)):
            assert_same(fused.chunk_scan(**on(DEVICE, given)), chunk_scan_reference(**given))
            assert_same(fused.chunk_scan(**on(DEVICE, given), stride=128), plain_chunk_scan(**given, stride=128))


@pytest.mark.parametrize("n", [64, 128])
def test_the_chunk_scan_is_as_precise_as_float32(n: int, fused: ops.Implementations) -> None:
    """In heads of real models no digit is lost to TF32: the error against float64 is float32's."""
    inputs = chunk_inputs(2, 500, heads=8, width=64, groups=1, n=n)
    trusted(fused, on(DEVICE, inputs))
    exact = chunk_scan_reference(**{name: tensor.double() for name, tensor in inputs.items()})
    found = fused.chunk_scan(**on(DEVICE, inputs))
    for ours, theirs in ((found.y, exact.y), (found.state, exact.state)):
        assert (ours.cpu().double() - theirs).abs().max() < 2e-5 * theirs.abs().max()


@pytest.mark.parametrize("length", [1, 65, 300])
def test_plain_scans_run_on_the_device_too(length: int) -> None:
    """What takes the kernels' place where they are not installed, or for what they cannot do."""
    mamba1, mamba2 = selective_inputs(3, length), chunk_inputs(3, length)
    for stride in (None, 128):
        found = plain_selective_scan(**on(DEVICE, mamba1), stride=stride)
        assert_same(found, plain_selective_scan(**mamba1, stride=stride))
        assert_same(plain_chunk_scan(**on(DEVICE, mamba2), stride=stride), plain_chunk_scan(**mamba2, stride=stride))
    many = selective_inputs(1, 3, n=257), chunk_inputs(1, 3, n=257)
    assert_same(ops.selective_scan(**on(DEVICE, many[0])), plain_selective_scan(**many[0]))
    assert_same(ops.chunk_scan(**on(DEVICE, many[1])), plain_chunk_scan(**many[1]))


def test_integer_products_are_exact() -> None:
    """By the tensor cores, for one row and many, for sizes that are multiples of nothing and views of wider tensors."""
    generator = torch.Generator().manual_seed(0)
    for rows, columns, inner in ((1, 1, 1), (1, 24, 8), (3, 30, 77), (17, 8, 40), (33, 1, 1100), (64, 96, 4096)):
        a = torch.randint(-128, 128, (rows, inner + 3), dtype=torch.int8, generator=generator)
        b = torch.randint(-128, 128, (columns, inner), dtype=torch.int8, generator=generator)
        a[0], b[0] = -128, -128
        expected = int_matmul.int8_matmul_reference(a[:, 3:], b)
        on_device = a.to(DEVICE)[:, 3:], b.to(DEVICE)
        assert torch.equal(int_matmul.int8_matmul(*on_device).cpu(), expected)
        assert torch.equal(int_matmul._in_float32(*on_device).cpu(), expected)
    assert int_matmul._native_is_exact(DEVICE, torch.cuda.current_device())


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_second_device_works_while_the_first_is_current() -> None:
    """Kernels run where their tensors lie."""
    mamba1, mamba2, x = selective_inputs(2, 70), chunk_inputs(2, 70), torch.randn(2, 9, 8)
    assert_same(ops.selective_scan(**on("cuda:1", mamba1)), plain_selective_scan(**mamba1))
    assert_same(ops.chunk_scan(**on("cuda:1", mamba2)), plain_chunk_scan(**mamba2))
    weight = torch.randn(8, 4)
    found = ops.causal_conv1d(x.to("cuda:1"), weight.to("cuda:1"), None)
    assert torch.allclose(found.cpu(), causal_conv1d(x, weight, None), atol=1e-5)
