"""Kernels equal their definitions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quamba.kernels import int_matmul
from quamba.kernels.causal_conv1d import causal_conv1d, last_inputs
from quamba.kernels.chunk_scan import chunk_scan, chunk_scan_reference
from quamba.kernels.selective_scan import selective_scan, selective_scan_reference

sizes = st.integers(1, 70)


NATIVE = pytest.param(
    int_matmul._native,
    id="native",
    marks=pytest.mark.skipif(not int_matmul._native_is_exact("cpu", None), reason="this processor's saturate"),
)


@pytest.mark.parametrize(
    "product",
    [
        NATIVE,
        pytest.param(int_matmul._in_float32, id="float32"),
        pytest.param(int_matmul.int8_matmul, id="chosen"),
    ],
)
@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 33), columns=st.integers(1, 40), inner=st.integers(1, 2100), seed=st.integers(0, 1 << 30))
def test_integer_products_are_exact(product: object, rows: int, columns: int, inner: int, seed: int) -> None:
    """Every path gives the 64-bit integer product, for any shape."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randint(-128, 128, (rows, inner), dtype=torch.int8, generator=generator)
    b = torch.randint(-128, 128, (columns, inner), dtype=torch.int8, generator=generator)
    assert callable(product)
    assert torch.equal(product(a, b), int_matmul.int8_matmul_reference(a, b))


def test_integer_products_are_exact_at_the_extremes() -> None:
    """The largest sums that 8 bits can make, on every path: nothing saturates on the way."""
    a = torch.full((3, 5000), -128, dtype=torch.int8)
    b = torch.full((2, 5000), -128, dtype=torch.int8)
    b[1] = 127
    for product in (int_matmul.int8_matmul, int_matmul._in_float32):
        assert product(a, b).tolist() == [[128 * 128 * 5000, -128 * 127 * 5000]] * 3


def scan_inputs(batch: int, length: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    E, N = 12, 5
    return {
        "x": torch.randn(batch, length, E, generator=generator),
        "dt": torch.rand(batch, length, E, generator=generator),
        "A": -torch.rand(E, N, generator=generator) * 8,
        "B": torch.randn(batch, length, N, generator=generator),
        "C": torch.randn(batch, length, N, generator=generator),
        "D": torch.randn(E, generator=generator),
        "state": torch.randn(batch, E, N, generator=generator),
    }


@settings(max_examples=20, deadline=None)
@given(batch=st.integers(1, 4), length=sizes, stride=st.integers(1, 80), seed=st.integers(0, 1 << 30))
def test_selective_scan_is_its_definition(batch: int, length: int, stride: int, seed: int) -> None:
    """Outputs, final state and every checkpoint equal those of the loop over single tokens."""
    inputs = scan_inputs(batch, length, seed)
    fast, slow = selective_scan(**inputs, stride=stride), selective_scan_reference(**inputs)
    assert torch.allclose(fast.y, slow.y, atol=1e-4)
    assert torch.allclose(fast.state, slow.state, atol=1e-4)
    assert fast.checkpoints is not None
    marks = [min((i + 1) * stride, length) for i in range(-(-length // stride))]
    for index, mark in enumerate(marks):
        cut = {
            name: value[:, :mark] if value.ndim == 3 and name != "state" else value for name, value in inputs.items()
        }
        assert torch.allclose(fast.checkpoints[:, index], selective_scan_reference(**cut).state, atol=1e-4)


def test_selective_scan_in_slices_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work buffers smaller than the batch, or than a row, change nothing."""
    inputs = scan_inputs(7, 33, 0)
    expected = selective_scan_reference(**inputs)
    for elements in (1, 60, 60 * 3, 60 * 50):
        monkeypatch.setattr("quamba.kernels.selective_scan._BUFFER_ELEMENTS", elements)
        result = selective_scan(**inputs, stride=10)
        assert torch.allclose(result.y, expected.y, atol=1e-4)
        assert torch.allclose(result.state, expected.state, atol=1e-4)


def chunk_inputs(batch: int, length: int, groups: int, seed: int, decay: float = 4.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    H, P, N = 6, 4, 5
    return {
        "x": torch.randn(batch, length, H, P, generator=generator),
        "dt": torch.rand(batch, length, H, generator=generator),
        "A": -torch.rand(H, generator=generator) * decay,
        "B": torch.randn(batch, length, groups, N, generator=generator),
        "C": torch.randn(batch, length, groups, N, generator=generator),
        "D": torch.randn(H, generator=generator),
        "state": torch.randn(batch, H, P, N, generator=generator),
    }


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    length=sizes,
    groups=st.sampled_from([1, 2, 3, 6]),
    chunk_size=st.integers(1, 80),
    seed=st.integers(0, 1 << 30),
)
def test_chunk_scan_is_its_definition(batch: int, length: int, groups: int, chunk_size: int, seed: int) -> None:
    """Any chunk size gives the outputs and states of the loop over single tokens."""
    inputs = chunk_inputs(batch, length, groups, seed)
    fast, slow = chunk_scan(**inputs, chunk_size=chunk_size), chunk_scan_reference(**inputs)
    assert torch.allclose(fast.y, slow.y, atol=1e-4)
    assert torch.allclose(fast.state, slow.state, atol=1e-4)


def test_two_chunk_sizes_agree() -> None:
    """The chunk size is no parameter of the result."""
    inputs = chunk_inputs(2, 200, 2, 3)
    assert torch.allclose(chunk_scan(**inputs, chunk_size=16).y, chunk_scan(**inputs, chunk_size=64).y, atol=1e-4)


def test_chunk_scan_survives_decays_that_underflow() -> None:
    """Heads that forget within a token give finite outputs: no difference of exponents overflows."""
    inputs = chunk_inputs(2, 100, 1, 4, decay=4000.0)
    fast, slow = chunk_scan(**inputs), chunk_scan_reference(**inputs)
    assert torch.isfinite(fast.y).all()
    assert torch.allclose(fast.y, slow.y, atol=1e-4)


@pytest.mark.parametrize("length", [1, 95, 96, 97, 128])
def test_chunk_scan_checkpoints(length: int) -> None:
    """Checkpoints are the states after each stride and after the last token."""
    inputs = chunk_inputs(2, length, 1, 5)
    checkpoints = chunk_scan(**inputs, stride=48).checkpoints
    assert checkpoints is not None
    assert checkpoints.shape[1] == -(-length // 48)
    for index in range(checkpoints.shape[1]):
        mark = min((index + 1) * 48, length)
        cut = {name: t[:, :mark] if name in ("x", "dt", "B", "C") else t for name, t in inputs.items()}
        assert torch.allclose(checkpoints[:, index], chunk_scan_reference(**cut).state, atol=1e-4)


def test_convolution_is_torchs() -> None:
    """Channels last and with its context, it is the depthwise causal convolution."""
    generator = torch.Generator().manual_seed(0)
    for width in (1, 2, 4, 7):
        x, weight = torch.randn(3, 20, 6, generator=generator), torch.randn(6, width, generator=generator)
        bias = torch.randn(6, generator=generator)
        padded = torch.nn.functional.pad(x.transpose(1, 2), (width - 1, 0))
        expected = torch.nn.functional.conv1d(padded, weight[:, None], bias, groups=6).transpose(1, 2)
        assert torch.allclose(causal_conv1d(x, weight, bias), expected, atol=1e-5)
        context = last_inputs(x[:, :9], None, width - 1)
        assert torch.allclose(causal_conv1d(x[:, 9:], weight, bias, context), expected[:, 9:], atol=1e-5)


def test_last_inputs_respect_lengths() -> None:
    """Each row remembers its own last inputs, zeros and what was before where it is short."""
    x = torch.arange(1.0, 9.0).view(2, 4, 1)
    remembered = last_inputs(x, torch.tensor([1, 4]), 3)
    assert remembered.flatten(1).tolist() == [[0.0, 0.0, 1.0], [6.0, 7.0, 8.0]]
    later = last_inputs(x, torch.tensor([2, 1]), 3, remembered)
    assert later.flatten(1).tolist() == [[1.0, 1.0, 2.0], [7.0, 8.0, 5.0]]
    assert last_inputs(x[:, :2], None, 3, remembered).flatten(1).tolist() == [[1.0, 1.0, 2.0], [8.0, 5.0, 6.0]]
    assert last_inputs(x[:, :2], None, 3).flatten(1).tolist() == [[0.0, 1.0, 2.0], [0.0, 5.0, 6.0]]
    assert last_inputs(x, None, 3, remembered).flatten(1).tolist() == [[2.0, 3.0, 4.0], [6.0, 7.0, 8.0]]
